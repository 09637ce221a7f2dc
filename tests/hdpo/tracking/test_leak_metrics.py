"""Signs of copying as metrics: worked by hand, with their denominators, and from kept rows joined by key."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.algorithm.gate import Signs
from recipe.hdpo.tracking.kept_notes import KeptNotes
from recipe.hdpo.tracking.leak_metrics import leak_metrics


def signs(*values: object) -> dict:
    return asdict(Signs(*values))  # type: ignore[arg-type]


RECORDS = [
    GroupRecord(
        "a",
        cliff=True,
        solved=False,
        kept_signs={"a_8_0": signs(True, 10, 0.5, 0.4, 1.0, "done"), "a_9_0": signs(False, 2, 0.1, None, None, "done")},
        dropped={"steps": 2, "speaks": 1},
        step_check_errors=1,
    ),
    GroupRecord(
        "b",
        cliff=False,
        solved=True,
        plain_signs=[signs(False, None, None, 1.5, None, "failed"), signs(False, 3, 0.3, 0.5, 0.5, "done")],
    ),
    GroupRecord("c", cliff=True, solved=False, dropped={"steps": 1}),
]


def test_every_mean_is_over_the_trajectories_of_which_it_is_known() -> None:
    expected = {
        "kept_speaks": 1 / 2,
        "kept_shared_run": 6.0,
        "kept_shared_run_share": 0.3,
        "kept_length_share": 0.4,
        "kept_workless": 1.0,
        "kept_valid_steps": 1.0,
        "kept_without_steps": 1 / 2,
        "plain_correct": 2,
        "plain_speaks": 0.0,
        "plain_shared_run": 3.0,
        "plain_shared_run_share": 0.3,
        "plain_length_share": 1.0,
        "plain_workless": 0.0,
        "plain_valid_steps": 0.5,
        "plain_without_steps": 0.0,
        "dropped_speaks": 1,
        "dropped_run_share": 0,
        "dropped_length_share": 0,
        "dropped_length_unknown": 0,
        "dropped_steps": 3,
        "dropped_step_check_error": 0,
        "step_check_errors": 2,
    }
    assert leak_metrics(RECORDS) == {f"hdpo/{name}": pytest.approx(value) for name, value in expected.items()}


def test_without_a_trajectory_there_are_counts_and_no_means() -> None:
    assert set(leak_metrics([]).values()) == {0}
    assert all("kept_" not in name for name in leak_metrics(RECORDS[1:]))


def test_reliance_is_a_mean_over_trajectories_and_what_is_below_the_least_is_dropped_and_named() -> None:
    notes = KeptNotes(least=-1.0)
    notes.see(RECORDS)
    notes.update({"a_8_0": -1.5})
    notes.update({"a_9_0": -1.0, "c_8_0": 0.5})
    assert notes.metrics() == {
        "hdpo/reliance_mean": pytest.approx(-2 / 3),
        "hdpo/reliance_min": -1.5,
        "hdpo/dropped_reliance": 1,
    }
    assert notes.line("a_8_0") == {
        "hdpo_signs": RECORDS[0].kept_signs["a_8_0"],
        "hdpo_reliance": -1.5,
        "hdpo_dropped": "reliance",
    }
    assert notes.line("a_9_0")["hdpo_dropped"] is None and notes.line("c_8_0")["hdpo_signs"] is None
    assert notes.line("never seen") == {"hdpo_signs": None, "hdpo_reliance": None, "hdpo_dropped": None}
    notes.clear()
    assert notes.metrics() == {"hdpo/dropped_reliance": 0} and KeptNotes(None).metrics() == {}
