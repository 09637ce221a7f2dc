"""What an asynchronous trainer cannot do is refused for it alone, and named with the way out."""

from __future__ import annotations

import pytest

from recipe.hdpo.config.checks import refusals
from tests.hdpo.composed_config import composed

COLOCATE, SEPARATE = (f"trainer.v1.trainer_mode=hdpo_{name}_async" for name in ("colocate", "separate"))
REFUSED = {
    ("hdpo.privileged.schedule=next_step",): "no step waits for them: set schedule=same_step",
    ("hdpo.privileged.use=replace",): "may have been trained on",
    ("hdpo.rollout_seed=1",): "no run can be repeated",
}


@pytest.mark.parametrize("mode", [COLOCATE, SEPARATE])
def test_each_refusal_is_of_an_asynchronous_trainer_and_has_a_way_out(mode: str) -> None:
    assert not list(refusals(composed(mode)))
    for overrides, words in REFUSED.items():
        [message] = refusals(composed(mode, *overrides))
        assert words in message and mode in message and "set " in message
        assert not list(refusals(composed(*overrides)))


@pytest.mark.parametrize("key", ["+async_training.staleness_threshold=0.1", "+rollout.nnodes=1"])
def test_verls_programs_with_a_trainer_of_their_own_are_refused(key: str) -> None:
    """The keys are those that their configs add to the trainer's."""
    [message] = refusals(composed(key))
    assert "would train without HDPO: start verl.trainer.main_ppo with trainer.v1.trainer_mode=hdpo_sep" in message


@pytest.mark.parametrize("schedule", ["same_step", "next_step"])
def test_without_privileged_rollouts_their_schedule_is_nobodys_business(schedule: str) -> None:
    assert not list(refusals(composed(COLOCATE, f"hdpo.privileged.schedule={schedule}", "hdpo.privileged.n=0")))


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        ((SEPARATE, "hdpo.teacher=frozen"), True),
        ((SEPARATE, "hdpo.teacher=mixed"), True),
        ((SEPARATE, "hdpo.teacher=ema"), False),
        ((SEPARATE, "hdpo.teacher=frozen", "actor_rollout_ref.model.lora_rank=8"), False),
        ((SEPARATE, "hdpo.teacher=frozen", "actor_rollout_ref.hybrid_engine=true"), False),
        ((COLOCATE, "hdpo.teacher=frozen"), False),
    ],
)
def test_the_initial_model_has_to_be_where_the_actor_is(overrides: tuple[str, ...], refused: bool) -> None:
    found = list(refusals(composed("actor_rollout_ref.hybrid_engine=false", *overrides)))
    assert [("which cannot read it" in message) for message in found] == ([True] if refused else [])
