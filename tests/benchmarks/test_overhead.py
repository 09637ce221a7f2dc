"""The overhead table, from made-up timings."""

import pytest

from benchmarks.overhead import OVERRIDES, analyse
from benchmarks.overhead_trainer import kind
from recipe.hdpo.config.keys import is_derived
from recipe.hdpo.config.rules import MANAGER


def _step(step: int, **changes: float) -> dict:
    data = {
        "timing_s/step": 10.0,
        "timing_s/gen": 4.0,
        "timing_s/update_actor": 3.0,
        "hdpo/timing_s/privileged_wait": 0.0,
        "hdpo/cliff_rate": 0.25,
    }
    return {"step": step, "data": {**data, **changes}}


UPDATE = {"timing_s/update_actor": 3.5, "hdpo/timing_s/teacher_pass": 0.2}
SAME = {**UPDATE, "timing_s/step": 11.9, "timing_s/gen": 5.3, "hdpo/timing_s/privileged_wait": 1.0}
NEXT = {**UPDATE, "timing_s/step": 10.6}


def test_the_cliffs_that_a_next_step_re_issues_are_those_of_a_same_step() -> None:
    assert [kind(step) for step in range(1, 7)] == ["same_step", "next_step", "GRPO"] * 2


def test_parts_and_ratios_by_hand() -> None:
    # The first two steps are left out.
    steps = [_step(1), _step(2), _step(3), _step(4, **SAME), _step(5, **NEXT), _step(6)]
    result = analyse(steps)
    assert result["grpo_step"] == pytest.approx(10.0)
    assert (result["steps_GRPO"], result["steps_same_step"], result["steps_next_step"]) == (2, 1, 1)
    assert result["cliff_rate"] == 0.25
    expected = {
        "teacher_pass": (0.2, 0.2),
        "larger_update": (0.3, 0.3),
        "rollout_phase": (0.3, 0.0),
        "rest": (0.1, 0.1),
        "wait": (1.0, 0.0),
        "ratio": (1.19, 1.06),
    }
    for part, values in expected.items():
        assert [result[f"{part}_{name}"] for name in ("same_step", "next_step")] == pytest.approx(values), part
    assert result["ratio_same_step_without_wait"] == pytest.approx(1.09)


def test_too_few_steps_are_said() -> None:
    with pytest.raises(ValueError, match="run more steps"):
        analyse([_step(1), _step(2), _step(3)])


def test_the_rules_accept_a_manager_that_derives_from_the_recipe_s() -> None:
    [setting] = [setting for setting in OVERRIDES if "agent_loop_manager_class" in setting]
    assert is_derived(setting.partition("=")[2], MANAGER)
