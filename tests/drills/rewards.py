"""A reward function that does not do what it should."""

from __future__ import annotations

import json

from tests.drills.training import END_WITHIN, START_WITHIN, fresh, training


def reward_hangs() -> None:
    """The first reward call never returns."""
    _with_fault("hang", "has not returned within")


def reward_raises() -> None:
    """Every fourth reward call raises."""
    _with_fault("raise_", "made to fail")


def reward_nan() -> None:
    """Every fourth reward is NaN."""
    _with_fault("not_a_number", "nan")


def _with_fault(fault: str, needle: str) -> None:
    settings = ["hdpo.reward_timeout=10", "trainer.total_training_steps=2"]
    function = [
        "reward.custom_reward_function.path=tests/drills/faulty_reward.py",
        f"reward.custom_reward_function.name={fault}",
    ]
    out = fresh(f"reward_{fault}")
    with training(out, *settings, *function) as run:
        run.wait(lambda: run.steps() == [1, 2], START_WITHIN + END_WITHIN, "second step")
        run.wait_for_end()
    [metrics] = out.glob("metrics*.jsonl")
    names = ("hdpo/lost_rollouts", "hdpo/unscored_rollouts", "hdpo/cliff_rate", "actor/grad_norm")
    for line in metrics.read_text().splitlines():
        values = json.loads(line)["data"]
        print(f"[drill] step {json.loads(line)['step']}: " + ", ".join(f"{n} {values[n]:g}" for n in names))
    run.say(needle)
