"""Rules (as in `rules.py`) on what makes rollouts and rewards."""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import ROLLOUT, Rule, select

MANAGER = "recipe.hdpo.rollout.agent_loop.HDPOAgentLoopManager"


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


def other_engine(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    name = select(config, f"{ROLLOUT}.name")
    if name == "trtllm" and hdpo.privileged.n > 0:
        return (
            f"{ROLLOUT}.name=trtllm: verl's server for it takes what a privileged prompt needs from the response, "
            "down to nothing: use vllm"
        )
    if name != "vllm" and hdpo.rollout_seed is not None:
        return f"hdpo.rollout_seed={hdpo.rollout_seed} is vLLM's, not {name}'s: set it to null, or {ROLLOUT}.name=vllm"
    return None


def skipped_rollouts(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    key = "skip.rollout_tq.enable"
    if not select(config, key, False):
        return None
    return f"{key}=true stores fields that every row of a step has, and the groups' records have none: set it to false"


ROLLOUT_RULES: tuple[Rule, ...] = (
    no_rollout_hook,
    other_engine,
    skipped_rollouts,
    one_rollout,
    filtered_groups,
    multi_turn,
    late_reward,
)
