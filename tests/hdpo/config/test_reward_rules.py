"""Settings of rewards that verl does not read, or that make failures of correct responses."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from recipe.hdpo.config.checks import refusals, warnings_of
from recipe.hdpo.config.reward_rules import OLDER, PENALTY
from tests.hdpo.composed_config import composed

DAPO = ("reward.reward_manager.name=dapo", f"+{PENALTY}.enable=true", "+reward.reward_kwargs.max_resp_len=2048")


@pytest.mark.parametrize(
    ("override", "instead"),
    [
        ("custom_reward_function.path=/mine.py", "reward.custom_reward_function.path=/mine.py"),
        ("reward_model.reward_manager=dapo", "reward.reward_manager.name=dapo"),
        ("reward_model.enable=true", "reward.reward_model.enable=true"),
        ("reward_model.model.path=/model", "reward.reward_model.model_path=/model"),
        ("reward_model.rollout.name=vllm", "reward.reward_model.rollout.name=vllm"),
        ("+reward_model.reward_kwargs.max_resp_len=8", "reward.reward_kwargs.max_resp_len=8"),
        ("reward_model.reward_loop_class_name=Mine", "reward.reward_manager.module.name=Mine"),
        ("sandbox_fusion.url=http://box", "reward.sandbox_fusion.url=http://box"),
    ],
)
def test_older_keys_that_verls_trainer_does_not_read_are_refused_with_the_newer_ones(
    override: str, instead: str
) -> None:
    [message] = refusals(composed(override))
    assert message.startswith(f"{override.lstrip('+')}: verl's V1 trainer does not read")
    assert message.endswith(f": write {instead}")


def test_older_keys_of_several_nodes_are_one_refusal_and_what_they_switch_off_is_none() -> None:
    [message] = refusals(composed("custom_reward_function.path=/mine.py", "custom_reward_function.name=score"))
    assert message.startswith("custom_reward_function.path=/mine.py, custom_reward_function.name=score: ")
    assert list(refusals(composed("reward_model.enable=false"))) == []


def test_every_older_key_becomes_what_verls_other_programs_make_of_it() -> None:
    from verl.experimental.reward_loop import migrate_legacy_reward_impl

    keys = dict(OLDER)
    for node, key in (("custom_reward_function", "path"), ("sandbox_fusion", "url"), ("reward_model", "nnodes")):
        keys[f"{node}.{key}"] = f"{keys.pop(node)}.{key}"
    config = migrate_legacy_reward_impl(composed(*(f"++{older}=7" for older in keys)))
    assert {newer: OmegaConf.select(config, newer) for newer in keys.values()} == dict.fromkeys(keys.values(), 7)


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        ((f"+{PENALTY}.penalty_factor=1.0",), True),
        ((f"+{PENALTY}.penalty_factor=0.9", "hdpo.success_reward=0.5"), True),
        ((f"+{PENALTY}.penalty_factor=0.9", "hdpo.success_reward=0.1"), False),
        # Of rewards between -1 and 1.
        ((f"+{PENALTY}.penalty_factor=1.0", "hdpo.success_reward=0"), False),
        ((f"+{PENALTY}.penalty_factor=1.0", f"{PENALTY}.enable=false"), False),
        ((f"+{PENALTY}.penalty_factor=1.0", "reward.reward_manager.name=naive"), False),
    ],
    ids=str,
)
def test_a_penalty_that_makes_failures_of_long_correct_responses_is_said(
    overrides: tuple[str, ...], warned: bool
) -> None:
    config = composed(*DAPO, *overrides)
    assert list(refusals(config)) == []
    found = list(warnings_of(config))
    assert [message.startswith(f"{PENALTY}.penalty_factor=") for message in found] == [True] * warned
    assert not warned or "hdpo.success_reward=" in found[0]
