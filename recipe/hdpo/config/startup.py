"""Checks that need the tokenizer, the model's config or the data: made by the trainer before any worker starts."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from omegaconf import DictConfig

from recipe.hdpo.algorithm.privileged_prompt import text_at, why_no_text
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.model_rules import topk_message
from recipe.hdpo.data.readers import read_rows, row_name

logger = logging.getLogger(__name__)

STUDENT_AGENT = "single_turn_agent"
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
    """Refuse training data that privileged rollouts cannot serve; count and name rows that have no solution.

    Args:
        dataset: verl's RLHFDataset, or a user's own dataset; one without a Hugging Face ``dataframe`` cannot be looked
            at, and that is said.

    Raises:
        ValueError: multi-modal data, another agent, or no row with the text that a privileged prompt shows.
    """
    frame: Any = getattr(dataset, "dataframe", None)
    if not hasattr(frame, "select_columns"):
        logger.warning(
            f"{type(dataset).__name__} has no Hugging Face dataset as its `dataframe`, so its rows are not checked: "
            "HDPO takes text prompts, single-turn agents, and a solution in every row (cliffs without are counted)"
        )
        return
    columns = set(frame.column_names)
    for key in ("image_key", "video_key", "audio_key"):
        if config.data.get(key) in columns:
            raise ValueError(
                f"data column '{config.data[key]}' (data.{key}) is multi-modal, and HDPO's privileged prompts are "
                "text: remove the column, or name another one"
            )
    if "agent_name" in columns and set(frame["agent_name"]) != {STUDENT_AGENT}:
        raise ValueError(
            f"data column 'agent_name' names agents other than {STUDENT_AGENT}, and privileged rollouts are "
            "single-turn: remove the column"
        )
    if hdpo.privileged.n > 0 and hdpo.privileged.source != "problem":
        _check_prompts(config, frame)
        _check_privileged_text(config, hdpo, frame)


def _check_privileged_text(config: DictConfig, hdpo: HDPOConfig, frame: Any) -> None:
    name = f"{hdpo.privileged.source}_key"
    key = getattr(hdpo.privileged, name)
    column = key.split(".")[0]
    columns = [name for name in {column, "extra_info"} if name in frame.column_names]
    rows = read_rows(frame, columns) if columns else [{}] * len(frame)
    join = hdpo.privileged.join_texts
    without = [(row_name(i, r), why_no_text(r, key)) for i, r in enumerate(rows) if text_at(r, key, join=join) is None]
    if not without:
        return
    found = ", ".join(f"{why} in {n}" for why, n in Counter(why for _, why in without).most_common())
    remedy = ""
    if any(why == "a list of texts" for _, why in without):
        remedy = "; hdpo.privileged.join_texts=true joins a list of texts by line breaks"
    if len(without) == len(frame):
        raise ValueError(
            f"no row of {config.data.train_files} has a text at {key}, which privileged prompts show "
            f"(hdpo.privileged.source={hdpo.privileged.source}): name the right place by hdpo.privileged.{name}. There "
            f"stands {found}{remedy}"
        )
    logger.warning(
        f"{len(without)} of {len(frame)} training rows have no text at {key} (there stands {found}{remedy}); as cliffs "
        f"they are skipped and counted (hdpo/skipped_no_solution). First: {', '.join(row for row, _ in without[:5])}"
    )


def _check_prompts(config: DictConfig, frame: Any) -> None:
    key = config.data.get("prompt_key", "prompt")
    if key not in frame.column_names:
        return
    for i, row in enumerate(read_rows(frame, [key, *({"extra_info"} & set(frame.column_names))])):
        if not all(isinstance(message["content"], str) for message in row[key]):
            raise ValueError(
                f"the prompt of training {row_name(i, row)} has a message whose content is a list of parts, and HDPO's "
                f"privileged prompts are text: make the content of every message of data column '{key}' a text"
            )
