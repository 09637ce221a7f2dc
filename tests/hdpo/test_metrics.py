"""What is logged each step, worked by hand."""

import json
import math
import random
import re
from pathlib import Path

import pytest

from recipe.hdpo.metrics import CliffHistory, GroupRecord, privileged_wait_seconds, step_metrics

ROOT = Path(__file__).parents[2]


def _records() -> list[GroupRecord]:
    return [
        GroupRecord("a", True, False, 0, 2, solved_privileged=1, kept=1, kept_tokens=7, settled_at=10.0, ended_at=12.0),
        GroupRecord("b", cliff=False, solved=True, settled_at=11.0, ended_at=11.0),
        GroupRecord("c", cliff=True, solved=False, too_long=2, settled_at=9.0, ended_at=9.5),
        GroupRecord("d", cliff=False, solved=False, lost_rollouts=1, settled_at=8.0, ended_at=8.0),
    ]


def test_step_metrics_by_hand() -> None:
    metrics = step_metrics(_records(), CliffHistory())
    expected = {
        "cliffs": 2,
        "cliff_rate": 0.5,
        "privileged_rollouts": 2,
        "privileged_solve_rate": 0.5,
        "kept_trajectories": 1,
        "kept_tokens": 7,
        "skipped_too_long": 2,
        "skipped_no_solution": 0,
        "skipped_error": 0,
        "lost_rollouts": 1,
        "cliffs_solved_now": 0,
        "new_cliffs": 0,
        "open_cliffs": 2,
        "ever_cliffs": 2,
        "timing_s/privileged_wait": 1.0,
    }
    assert metrics == {f"hdpo/{k}": pytest.approx(v) for k, v in expected.items()}


def test_rates_over_nothing_are_left_out() -> None:
    assert "hdpo/cliff_rate" not in step_metrics([], CliffHistory())
    [_, solved, *_] = _records()
    assert "hdpo/privileged_solve_rate" not in step_metrics([solved], CliffHistory())


def test_privileged_rollouts_beside_other_rollouts_cost_no_wait() -> None:
    early = GroupRecord("a", cliff=True, solved=False, settled_at=1.0, ended_at=5.0)
    late = GroupRecord("b", cliff=False, solved=True, settled_at=6.0, ended_at=6.0)
    assert privileged_wait_seconds([early, late]) == 0.0


def test_a_cliff_counts_as_solved_once_when_it_is_solved_later() -> None:
    history = CliffHistory()
    cliff = GroupRecord("a", cliff=True, solved=False)
    solved = GroupRecord("a", cliff=False, solved=True)
    lost = GroupRecord("a", cliff=False, solved=False, lost_rollouts=1)
    flows = [history.update([r]) for r in (cliff, lost, solved, solved)]
    assert flows == [(0, 0), (0, 0), (1, 0), (0, 0)]
    assert (history.open_cliffs, history.ever_cliffs, history.solved) == (set(), {"a"}, {"a"})


def test_a_solved_prompt_counts_once_when_it_is_a_cliff_later() -> None:
    history = CliffHistory()
    cliff = GroupRecord("a", cliff=True, solved=False)
    solved = GroupRecord("a", cliff=False, solved=True)
    lost = GroupRecord("a", cliff=False, solved=False, lost_rollouts=1)
    flows = [history.update([r]) for r in (solved, lost, cliff, cliff, solved)]
    assert flows == [(0, 0), (0, 0), (0, 1), (0, 0), (1, 0)]


def test_a_model_that_learns_nothing_has_both_flows_about_equally_often() -> None:
    rng, history = random.Random(0), CliffHistory()
    chances = [rng.betavariate(0.3, 2) for _ in range(4000)]
    flows = []
    for _ in range(3):
        failed = [all(rng.random() >= p for _ in range(8)) for p in chances]
        flows.append(history.update(GroupRecord(str(i), f, not f) for i, f in enumerate(failed)))
    assert flows[0] == (0, 0)
    for solved_now, new_cliffs in flows[1:]:
        assert solved_now > 200 and abs(solved_now - new_cliffs) < 4 * math.sqrt(solved_now + new_cliffs)


def test_history_of_a_checkpoint_without_solved_prompts_is_read() -> None:
    assert CliffHistory.from_state_dict({"open_cliffs": ["a"], "ever_cliffs": ["a", "b"]}).solved == set()


def test_history_survives_a_checkpoint() -> None:
    history = CliffHistory()
    history.update(_records())
    state = json.loads(json.dumps(history.state_dict()))
    assert CliffHistory.from_state_dict(state) == history


def test_records_survive_their_tag_and_rows_have_none() -> None:
    for record in _records():
        assert GroupRecord.from_tag(json.loads(json.dumps(record.as_tag()))) == record
    assert GroupRecord.from_tag({"status": "success"}) is None


def test_every_metric_is_explained_and_every_explained_metric_is_logged() -> None:
    logged = set()
    for file in (ROOT / "recipe/hdpo").rglob("*.py"):
        logged |= set(re.findall(r'"hdpo/((?:timing_s/)?[a-z_]+)[":]', file.read_text()))
    logged |= {"grad_norm_grpo", "grad_norm_distillation"}  # made of a prefix and a term
    table = (ROOT / "docs/metrics.md").read_text().partition("Validation adds")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    explained = set(re.findall(r"`([a-z_/]+)`", " ".join(first_cells)))
    assert explained == logged
