"""The simulation of schedules, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.schedule import SCENARIOS, made_up, times_of_run
from recipe.hdpo.algorithm.schedule_cost import Step, ratios, rollout_tokens


def step(*longest: int, cliffs: str) -> Step:
    return Step(np.array(longest), np.array([mark == "x" for mark in cliffs]))


STEPS = [step(100, 80, 60, cliffs="x.x"), step(50, 90, 40, cliffs="..."), step(30, 20, 10, cliffs="..x")]
SHOWN = [np.array([10, 70]), np.zeros(0), np.array([5])]


def test_the_critical_path_of_each_schedule_by_hand() -> None:
    """Cliffs of step 1 end at 100 + 10 and 60 + 70; a step later they are shorter than that step's longest, 90."""
    assert rollout_tokens(STEPS, SHOWN).tolist() == [[100, 130, 100], [90, 90, 90], [30, 30, 30]]
    late = rollout_tokens(STEPS, [np.array([10, 95]), *SHOWN[1:]])
    assert late.tolist() == [[100, 155, 100], [90, 90, 95], [30, 30, 30]]


def test_the_rest_of_a_step_dilutes_the_wait() -> None:
    same, following = ratios(STEPS, SHOWN, ms=1000.0, rest=0.0)
    assert (same, following) == pytest.approx((250 / 220, 1.0))
    same, following = ratios(STEPS, SHOWN, ms=1000.0, rest=100.0)
    assert (same, following) == pytest.approx(((250 / 3 + 100) / (220 / 3 + 100), 1.0))


def test_without_cliffs_every_schedule_costs_what_grpo_does_and_with_a_quarter_the_same_step_waits() -> None:
    size = dict(prompts=32, rollouts=16, shown=1, steps=50, seed=1)
    for case in SCENARIOS:
        assert ratios(*made_up(case, cliffs=0.0, **size), 8.0, case.rest) == (1.0, 1.0)
        same, following = ratios(*made_up(case, cliffs=0.25, **size), 8.0, case.rest)
        assert same > 1.1 > 1.01 > following


def test_a_runs_time_per_token_leaves_out_what_waited_for_privileged_rollouts(tmp_path: Path) -> None:
    rows = [
        {"timing_s/gen": 12.0, "hdpo/timing_s/privileged_wait": 3.0, "timing_s/step": 20.0},
        {"timing_s/gen": 9.0, "timing_s/step": 17.0},
        {"val-core/x": 1.0},
    ]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps({"step": i, "data": row}) + "\n" for i, row in enumerate(rows)))
    assert times_of_run(file, STEPS) == (pytest.approx(1000 * 9.0 / 90), 8.0)
