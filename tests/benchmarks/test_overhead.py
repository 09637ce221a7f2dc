"""The overhead table, from made-up timings."""

import pytest

from benchmarks.overhead import analyse


def _step(step: int, **changes: float) -> dict:
    data = {
        "timing_s/step": 10.0,
        "timing_s/gen": 4.0,
        "timing_s/update_actor": 3.0,
        "hdpo/timing_s/privileged_wait": 1.0,
        "hdpo/cliff_rate": 0.25,
    }
    return {"step": step, "data": {**data, **changes}}


def test_parts_and_ratios_by_hand() -> None:
    slow = {"timing_s/step": 10.6, "timing_s/update_actor": 3.5, "hdpo/timing_s/teacher_pass": 0.2}
    steps = [_step(1), _step(2), _step(3), _step(4, **slow), _step(5), _step(6, **slow)]
    result = analyse(steps)
    assert result["grpo_step"] == pytest.approx(9.0)
    assert result["teacher_pass"] == pytest.approx(0.2)
    assert result["larger_update"] == pytest.approx(0.3)
    assert result["rest"] == pytest.approx(0.1)
    assert result["ratio_without_wait"] == pytest.approx(1 + 0.6 / 9.0)
    assert result["ratio_with_wait"] == pytest.approx(1 + 1.6 / 9.0)
    assert (result["steps_grpo"], result["steps_hdpo"], result["cliff_rate"]) == (2, 2, 0.25)


def test_too_few_steps_are_said() -> None:
    with pytest.raises(ValueError, match="run more steps"):
        analyse([_step(1), _step(2), _step(3)])
