"""What cannot work together with HDPO: one function a rule, each with the value, the reason and the way out.

A rule takes the composed config and the recipe's knobs, and returns a message, or None where the config is fine.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import ACTOR, MODEL, ROLLOUT, select
from recipe.hdpo.config.lengths import (
    micro_batch_too_small,
    no_limit,
    no_room_for_the_response,
    no_room_for_the_solution,
)
from recipe.hdpo.privileged import compile_template

VERL_VERSION = "0.9.1"
MANAGER = "recipe.hdpo.rollout.HDPOAgentLoopManager"

Rule = Callable[[DictConfig, HDPOConfig], str | None]


def wrong_verl(config: DictConfig, hdpo: HDPOConfig) -> str | None:
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


def no_rollout_hook(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    manager = select(config, f"{ROLLOUT}.agent.agent_loop_manager_class")
    needed_by = {
        f"hdpo.privileged.n={hdpo.privileged.n}": hdpo.privileged.n > 0,
        f"hdpo.rollout_seed={hdpo.rollout_seed}": hdpo.rollout_seed is not None,
        "hdpo.validate_greedy=true": hdpo.validate_greedy,
    }
    asked = [name for name, needed in needed_by.items() if needed]
    if manager == MANAGER or not asked:
        return None
    return (
        f"{ROLLOUT}.agent.agent_loop_manager_class={manager} never re-issues cliffs, nor does anything else for "
        f"{', '.join(asked)}: set it to {MANAGER}, or switch these off"
    )


def not_fsdp(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    strategy = select(config, f"{ACTOR}.strategy")
    if strategy in ("fsdp", "fsdp2"):
        return None
    return f"{ACTOR}.strategy={strategy}: the distillation term is written for the FSDP engine: use fsdp2 (or fsdp)"


def fused_kernels(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not select(config, f"{MODEL}.use_fused_kernels", False):
        return None
    return f"{MODEL}.use_fused_kernels=true never makes the logits that the divergence reads: set it to false"


def pad_to_length(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    key = f"{ACTOR}.fsdp_config.pad_to_length"
    if not select(config, key, False):
        return None
    return f"{key}=true: verl refuses it together with a logits processor, which the divergence is: set it to false"


def sequence_parallel(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    for part in ("", "fsdp_config."):
        key = f"{ACTOR}.{part}ulysses_sequence_parallel_size"
        size = select(config, key, 1)
        if size > 1:
            return (
                f"{key}={size}: teacher and student sequences differ in length, so their shards do not align: "
                "set it to 1"
            )
    return None


def one_rollout(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    size = select(config, f"{ROLLOUT}.n", 1)
    if size > 1 or select(config, "algorithm.adv_estimator") != "hdpo":
        return None
    return f"{ROLLOUT}.n={size}: an advantage needs other rollouts of the same prompt: set it to 2 or more (paper: 16)"


def filtered_groups(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not select(config, "algorithm.filter_groups.enable", False):
        return None
    return "algorithm.filter_groups.enable=true evicts groups of equal reward, so every cliff: set it to false"


def multi_turn(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if select(config, f"{ROLLOUT}.multi_turn.enable", False):
        return f"{ROLLOUT}.multi_turn.enable=true: privileged rollouts are single-turn: set it to false"
    agent = select(config, f"{ROLLOUT}.agent.default_agent_loop")
    if agent != "single_turn_agent":
        return f"{ROLLOUT}.agent.default_agent_loop={agent}: privileged rollouts are single-turn: use single_turn_agent"
    return None


def late_reward(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    model = "reward.reward_model"
    if not select(config, f"{model}.enable", False) or select(config, f"{model}.enable_resource_pool", False):
        return None
    return (
        f"{model}.enable=true without a resource pool of its own scores rollouts after the rollout phase, too late to "
        f"find cliffs: set {model}.enable_resource_pool=true, or use a rule-based reward"
    )


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
    no_rollout_hook,
    not_fsdp,
    fused_kernels,
    pad_to_length,
    sequence_parallel,
    one_rollout,
    filtered_groups,
    multi_turn,
    late_reward,
    verl_distillation,
    no_limit,
    no_room_for_the_solution,
    no_room_for_the_response,
    micro_batch_too_small,
    too_many_replacements,
    topk_above_vocabulary,
    bad_template,
)
