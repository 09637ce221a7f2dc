"""Rules (as in ``rules.py``) on verl's asynchronous trainers."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import Rule, is_async, is_separate, select, uses_lora

MODE = "trainer.v1.trainer_mode"


def other_program(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """Of verl's programs only ``main_ppo`` looks up its trainer by name; others bring keys of their own."""
    for key in ("async_training", "rollout.nnodes"):
        if OmegaConf.select(config, key) is not None:
            return (
                f"{key} is of a verl program with a trainer of its own (fully asynchronous, or one step off), which "
                f"would train without HDPO: start verl.trainer.main_ppo with {MODE}=hdpo_separate_async in its place, "
                f"without {key.partition('.')[0]}.* keys"
            )
    return None


def next_step_of_no_step(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not is_async(config) or hdpo.privileged.n == 0 or hdpo.privileged.schedule == "same_step":
        return None
    return (
        f"hdpo.privileged.schedule={hdpo.privileged.schedule} with {MODE}={select(config, MODE)}: there privileged "
        "rollouts follow their cliff at once and no step waits for them: set schedule=same_step"
    )


def replaced_too_late(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not is_async(config) or hdpo.privileged.n == 0 or hdpo.privileged.use != "replace":
        return None
    return (
        f"hdpo.privileged.use=replace with {MODE}={select(config, MODE)}: the failures that would be replaced may have "
        f"been trained on before the privileged rollouts are done: set {MODE}=hdpo"
    )


def seeds_without_repetition(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not is_async(config) or hdpo.rollout_seed is None:
        return None
    return (
        f"hdpo.rollout_seed={hdpo.rollout_seed} with {MODE}={select(config, MODE)}: rollouts are interrupted whenever "
        "new weights come, at a token that depends on time, and begin their random numbers anew, so no run can be "
        f"repeated: set it to null, or {MODE}=hdpo"
    )


def no_initial_model(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """Without hybrid replicas verl holds the reference model in workers of its own."""
    key = "actor_rollout_ref.hybrid_engine"
    if not is_separate(config) or select(config, key, True) or not hdpo.reads_initial_model or uses_lora(config):
        return None
    return (
        f"{key}=false with hdpo.teacher={hdpo.teacher}: verl then holds the initial model in other workers than the "
        f"actor's, which cannot read it: set {key}=true, or hdpo.teacher=drifting or ema"
    )


def no_steps_to_rest(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not is_async(config) or hdpo.reinjection_delay == 0:
        return None
    return (
        f"hdpo.reinjection_delay={hdpo.reinjection_delay} with {MODE}={select(config, MODE)}: prompts are asked for "
        f"before the step that trains on them, so none could rest: set it to 0, or {MODE}=hdpo"
    )


ASYNC_RULES: tuple[Rule, ...] = (
    other_program,
    next_step_of_no_step,
    replaced_too_late,
    seeds_without_repetition,
    no_initial_model,
    no_steps_to_rest,
)
