"""Checks that need the tokenizer, the model's config or the data: made by the trainer before any worker starts."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.agent_rules import agents_without_class, unknown_agents
from recipe.hdpo.config.model_rules import topk_message
from recipe.hdpo.data.checks import check_rows

logger = logging.getLogger(__name__)

LARGE_VOCABULARY = 10_000


def check_model(hdpo: HDPOConfig, hf_config: Any, processor: Any) -> None:
    """Refuse a top-k that is larger than the model's vocabulary, and models whose rollouts have positions of several
    dimensions, for text too; warn of a comparison over a large vocabulary.

    Args:
        processor: verl's processor of a vision-language model; None for a language model.

    Raises:
        ValueError: names what does not fit.
    """
    size = hf_config.get_text_config().vocab_size
    if hdpo.topk is not None and hdpo.topk > size:
        raise ValueError(topk_message(hdpo.topk, size))
    if hdpo.distills and hasattr(processor, "get_rope_index"):
        raise ValueError(
            f"{type(processor).__name__}: verl gives this vision-language model positions of several dimensions, and "
            "kept trajectories have those of a text: use a language model"
        )
    if hdpo.reads_teacher and hdpo.topk is None and size > LARGE_VOCABULARY:
        logger.warning(
            f"hdpo.topk=null keeps {12 * size / 2**20:.1f} MiB for every distilled token until the end of the update "
            f"(a vocabulary of {size}): the host's memory has to hold that; 64 is the paper's k"
        )


def check_data(config: DictConfig, hdpo: HDPOConfig, dataset: Any) -> None:
    """Refuse training data that verl or privileged rollouts cannot serve; count and name rows that teach nothing.

    Args:
        dataset: verl's RLHFDataset, or a user's own dataset; one without a Hugging Face ``dataframe`` cannot be looked
            at, and that is said.

    Raises:
        ValueError: multi-modal data, an agent that verl does not know, or what :mod:`recipe.hdpo.data.checks` refuses.
    """
    frame: Any = getattr(dataset, "dataframe", None)
    if not hasattr(frame, "select_columns"):
        check_rows(config, hdpo, dataset)
        logger.warning(
            f"{type(dataset).__name__} has no Hugging Face dataset as its `dataframe`, so its rows are not checked: "
            "HDPO takes text prompts, and a solution in every row (cliffs without are counted)"
        )
        return
    columns = set(frame.column_names)
    for key in ("image_key", "video_key", "audio_key"):
        if config.data.get(key) in columns:
            raise ValueError(
                f"data column '{config.data[key]}' (data.{key}) is multi-modal, and HDPO's privileged prompts are "
                "text: remove the column, or name another one"
            )
    if "agent_name" in columns:
        names = set(frame["agent_name"])
        problem = unknown_agents(config, names)
        if problem is None and hdpo.privileged.n > 0:
            problem = agents_without_class(config, names)
        if problem:
            raise ValueError(f"data column 'agent_name' names {problem}")
    check_rows(config, hdpo, dataset)
