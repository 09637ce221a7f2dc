"""Rules (as in ``rules.py``) on rewards: cliffs must be known in time, and be failures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import Rule, select

MODEL = "reward.reward_model"
PENALTY = "reward.reward_kwargs.overlong_buffer_cfg"
# verl's older names, which its config still has, and what became of them; the first that fits counts.
OLDER = {
    "custom_reward_function": "reward.custom_reward_function",
    "sandbox_fusion": "reward.sandbox_fusion",
    "reward_model.num_workers": "reward.num_workers",
    "reward_model.reward_manager": "reward.reward_manager.name",
    "reward_model.reward_loop_source": "reward.reward_manager.source",
    "reward_model.reward_loop_module_path": "reward.reward_manager.module.path",
    "reward_model.reward_loop_class_name": "reward.reward_manager.module.name",
    "reward_model.reward_kwargs": "reward.reward_kwargs",
    "reward_model.model.path": f"{MODEL}.model_path",
    "reward_model": MODEL,
}


def late_reward(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not select(config, f"{MODEL}.enable", False) or select(config, f"{MODEL}.enable_resource_pool", False):
        return None
    return (
        f"{MODEL}.enable=true without a resource pool of its own scores rollouts after the rollout phase, too late to "
        f"find cliffs: set {MODEL}.enable_resource_pool=true and {MODEL}.rollout.free_cache_engine=false, or use a "
        "rule-based reward"
    )


def sleeping_reward_model(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """verl wakes a reward model only where that scores a whole batch."""
    if not (select(config, f"{MODEL}.enable", False) and select(config, f"{MODEL}.enable_resource_pool", False)):
        return None
    if not select(config, f"{MODEL}.rollout.free_cache_engine", True):
        return None
    return (
        f"{MODEL}.rollout.free_cache_engine=true (verl's default) puts the reward model to sleep at the start, and "
        "nothing wakes it where rollouts are scored one by one: set it to false, which costs nothing in a pool of "
        "its own"
    )


def older_reward_keys(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """verl's other programs turn these into the newer ones; ``main_ppo`` does not."""
    nodes = ("custom_reward_function", "reward_model", "sandbox_fusion")
    found = [item for node in nodes for item in _asked_for(config, node)]
    if not found:
        return None
    instead = []
    for key, value in found:
        older = next(name for name in OLDER if f"{key}.".startswith(f"{name}."))
        instead.append(f"{OLDER[older]}{key.removeprefix(older)}={value}")
    asked = ", ".join(f"{key}={value}" for key, value in found)
    return f"{asked}: verl's V1 trainer does not read the older keys of rewards: write {', '.join(instead)}"


def _asked_for(config: DictConfig, node: str) -> Iterator[tuple[str, Any]]:
    """Keys below a node, and values that ask for something."""
    value = select(config, node)
    if OmegaConf.is_dict(value):
        for name in value:
            yield from _asked_for(config, f"{node}.{name}")
    elif value not in (None, False):
        yield node, str(value).lower() if value is True else value


def penalised_length(config: DictConfig) -> str | None:
    """What to say where the penalty of DAPO's reward manager makes failures of correct responses; else None."""
    if select(config, "reward.reward_manager.name") != "dapo" or not select(config, f"{PENALTY}.enable", False):
        return None
    success, factor = select(config, "hdpo.success_reward"), select(config, f"{PENALTY}.penalty_factor")
    # A reward of 1 less the penalty; the sum is rounded.
    if not isinstance(factor, int | float) or success + factor <= 1.0 + 1e-6:
        return None
    return (
        f"{PENALTY}.penalty_factor={factor} takes so much off the reward of a response as long as it may be, and a "
        f"correct one below hdpo.success_reward={success} counts as a failure: a prompt whose correct responses are "
        "all long would be a cliff. With rewards of 0 and 1 set the first to 0.5 and the second to 0.5; else set the "
        "second between what a wrong response and a long correct one get"
    )


REWARD_RULES: tuple[Rule, ...] = (late_reward, sleeping_reward_model, older_reward_keys)
