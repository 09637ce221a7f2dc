"""What cannot work together with HDPO: one function a rule, each with the value, the reason and the way out.

A rule takes the composed config and the recipe's knobs, and returns a message, or None where the config is fine.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path

from omegaconf import DictConfig

from recipe.hdpo.algorithm.privileged_prompt import compile_template
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import MODEL, ROLLOUT, Rule, select
from recipe.hdpo.config.lengths import LENGTH_RULES
from recipe.hdpo.config.model_rules import MODEL_RULES
from recipe.hdpo.config.rollout_rules import ROLLOUT_RULES

VERL_VERSION = "0.9.1"


def wrong_verl(config: DictConfig, hdpo: HDPOConfig | None = None) -> str | None:
    installed = importlib.metadata.version("verl")
    if installed == VERL_VERSION:
        return None
    return (
        f"verl {installed} is installed; the recipe is written for and tested with {VERL_VERSION}: "
        f"pip install verl=={VERL_VERSION}"
    )


def legacy_trainer(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if select(config, "trainer.use_v1", False):
        return None
    return (
        "trainer.use_v1=false runs verl's legacy trainer, which has no hook for privileged rollouts: "
        "set trainer.use_v1=true"
    )


def cpu_without_platform(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if select(config, "trainer.device") != "cpu" or os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        return None
    return "trainer.device=cpu, but verl's platform is another: set VERL_PLATFORM=cpu in the environment"


def other_trainer(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """Trainers derived from the recipe's register under names that begin with its name."""
    mode = str(select(config, "trainer.v1.trainer_mode"))
    if mode.startswith("hdpo"):
        return None
    return f"trainer.v1.trainer_mode={mode} is a trainer without HDPO: add +use=hdpo, or set it to hdpo"


def verl_distillation(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not select(config, "distillation.enabled", False):
        return None
    return (
        "distillation.enabled=true is verl's own distillation from another model, whose loss would take the place of "
        "HDPO's: set it to false"
    )


def too_many_replacements(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    size = select(config, f"{ROLLOUT}.n", 1)
    if hdpo.privileged.use != "replace" or hdpo.privileged.n < size:
        return None
    return (
        f"hdpo.privileged.n={hdpo.privileged.n} with use=replace could replace all {size} rollouts of a group "
        f"({ROLLOUT}.n), which leaves no advantage: lower the first or raise the second"
    )


def topk_above_vocabulary(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """For a model on disk; one on a hub is checked at start-up (:mod:`recipe.hdpo.config.startup`)."""
    path = Path(str(select(config, f"{MODEL}.path", ""))) / "config.json"
    if hdpo.topk is None or not path.is_file():
        return None
    size = json.loads(path.read_text(encoding="utf-8")).get("vocab_size")
    return topk_message(hdpo.topk, size) if size is not None and hdpo.topk > size else None


def topk_message(topk: int, vocabulary: int) -> str:
    """The refusal of a top-k above the vocabulary."""
    return f"hdpo.topk={topk} is larger than the model's vocabulary of {vocabulary}: lower it, or set it to null"


def bad_template(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    try:
        compile_template(hdpo.privileged.template, hdpo.privileged.placement)
    except ValueError as error:
        return str(error)
    return None


RULES: tuple[Rule, ...] = (
    wrong_verl,
    legacy_trainer,
    other_trainer,
    *ROLLOUT_RULES,
    cpu_without_platform,
    *MODEL_RULES,
    verl_distillation,
    *LENGTH_RULES,
    too_many_replacements,
    topk_above_vocabulary,
    bad_template,
)
