"""What is logged each step, worked by hand."""

import re
from pathlib import Path

import pytest

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.algorithm.gate import REASONS
from recipe.hdpo.tracking.cliff_history import CliffHistory
from recipe.hdpo.tracking.step_metrics import privileged_wait_seconds, step_metrics

ROOT = Path(__file__).parents[3]


def _records() -> list[GroupRecord]:
    counts = dict(solved_privileged=1, kept=1, kept_tokens=7, privileged_truncated=3, skipped_truncated=1)
    lost = dict(lost_rollouts=1, unscored=1, truncated=3)
    return [
        GroupRecord("a", True, False, 0, 2, settled_at=10.0, ended_at=12.0, size=4, kept_truncated=2, **counts),
        GroupRecord("b", cliff=False, solved=True, settled_at=11.0, ended_at=11.0, size=4),
        GroupRecord("c", cliff=True, solved=False, too_long=2, settled_at=9.0, ended_at=9.5, size=4),
        GroupRecord("d", cliff=False, solved=False, settled_at=8.0, ended_at=8.0, size=4, overlong=True, **lost),
    ]


def test_step_metrics_by_hand() -> None:
    metrics = step_metrics(_records(), CliffHistory())
    expected = {
        "cliffs": 2,
        "reissued_cliffs": 0,
        "cliff_rate": 0.5,
        "privileged_rollouts": 2,
        "privileged_solve_rate": 0.5,
        "kept_trajectories": 1,
        "kept_tokens": 7,
        "skipped_too_long": 2,
        "skipped_no_solution": 0,
        "skipped_no_feedback": 0,
        "skipped_error": 0,
        "skipped_truncated": 1,
        "kept_truncated": 2,
        "overlong_prompts": 1,
        "lost_rollouts": 1,
        "unscored_rollouts": 1,
        "privileged_truncated_rate": 1.5,
        "truncated_rate": 3 / (4 * 4 - 1),
        "plain_correct": 0,
        "step_check_errors": 0,
        **dict.fromkeys((f"dropped_{reason}" for reason in REASONS), 0),
        "cliffs_solved_now": 0,
        "new_cliffs": 0,
        "open_cliffs": 2,
        "ever_cliffs": 2,
    }
    assert metrics == {f"hdpo/{k}": pytest.approx(v) for k, v in expected.items()}


def test_rates_over_nothing_are_left_out() -> None:
    assert not {"hdpo/cliff_rate", "hdpo/truncated_rate"} & step_metrics([], CliffHistory()).keys()
    [_, solved, *_] = _records()
    assert "hdpo/privileged_solve_rate" not in step_metrics([solved], CliffHistory())


def test_a_cliff_of_the_step_before_counts_among_privileged_rollouts_and_not_among_the_steps_groups() -> None:
    counts = dict(rollouts=2, solved_privileged=2, kept=2, kept_tokens=5)
    earlier = GroupRecord("e", cliff=False, solved=False, reissued=True, settled_at=11.5, ended_at=11.5, **counts)
    history = CliffHistory()
    alone, with_it = step_metrics(_records(), CliffHistory()), step_metrics([*_records(), earlier], history)
    changed = {
        "reissued_cliffs": 1,
        "privileged_rollouts": 4,
        "privileged_solve_rate": 3 / 4,
        "kept_trajectories": 3,
        "kept_tokens": 12,
        "privileged_truncated_rate": 3 / 4,
    }
    assert with_it == alone | {f"hdpo/{name}": pytest.approx(value) for name, value in changed.items()}
    assert "e" not in history.ever_cliffs | history.solved


def test_what_ends_before_the_steps_own_rollouts_costs_no_wait() -> None:
    earlier = GroupRecord("e", cliff=False, solved=False, reissued=True, settled_at=7.0, ended_at=7.0)
    [_, solved, *_] = _records()
    assert privileged_wait_seconds([solved, earlier]) == 0.0 == privileged_wait_seconds([earlier])


def test_privileged_rollouts_beside_other_rollouts_cost_no_wait() -> None:
    early = GroupRecord("a", cliff=True, solved=False, settled_at=1.0, ended_at=5.0)
    late = GroupRecord("b", cliff=False, solved=True, settled_at=6.0, ended_at=6.0)
    assert privileged_wait_seconds([early, late]) == 0.0


def test_every_metric_is_explained_and_every_explained_metric_is_logged() -> None:
    logged = set()
    for file in (ROOT / "recipe/hdpo").rglob("*.py"):
        logged |= set(re.findall(r'"hdpo/((?:timing_s/)?[a-z_]+)[":]', file.read_text()))
    logged |= {"grad_norm_grpo", "grad_norm_distillation"}  # made of a prefix and a term
    table = (ROOT / "docs/metrics.md").read_text().partition("Validation adds")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    explained = set(re.findall(r"`([a-z_/]+)`", " ".join(first_cells)))
    assert explained == logged
