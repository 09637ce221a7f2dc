"""What is logged of each rung of a ladder, worked by hand."""

import pytest

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.tracking.run_history import History
from recipe.hdpo.tracking.rung_metrics import rung_metrics
from recipe.hdpo.tracking.teacher_collapse import CollapseMonitor

SOURCES = ("answer", "prefix:0.5", "solution")


def _record(**by_source: tuple[int, int, int]) -> GroupRecord:
    record = GroupRecord("p", cliff=True, solved=False)
    for source, (rollouts, solved, kept) in by_source.items():
        record.count(source.replace("prefix", "prefix:0.5"), rollouts=rollouts, solved=solved, kept=kept)
    return record


def test_rung_metrics_by_hand() -> None:
    records = [
        _record(answer=(1, 0, 0), prefix=(2, 1, 1)),
        _record(answer=(1, 1, 1)),
        _record(answer=(2, 0, 0), prefix=(1, 0, 0)),
        _record(prefix=(1, 2, 1)),
        GroupRecord("s", cliff=False, solved=True),
    ]
    assert rung_metrics(records, SOURCES) == {
        "hdpo/rung_rollouts/answer": 4,
        "hdpo/rung_solve_rate/answer": 1 / 4,
        "hdpo/rung_kept_share/answer": pytest.approx(1 / 3),
        "hdpo/rung_rollouts/prefix_0.5": 4,
        "hdpo/rung_solve_rate/prefix_0.5": 3 / 4,
        "hdpo/rung_kept_share/prefix_0.5": pytest.approx(2 / 3),
        "hdpo/rung_rollouts/solution": 0,
        "hdpo/rung_kept_share/solution": 0.0,
    }


def test_shares_of_nothing_and_rungs_of_one_source_are_left_out() -> None:
    assert rung_metrics([], SOURCES) == dict.fromkeys((f"hdpo/rung_rollouts/{s.replace(':', '_')}" for s in SOURCES), 0)
    assert rung_metrics([_record(answer=(1, 1, 1))], ("answer",)) == {}


def test_the_history_logs_them_for_the_sources_of_its_run() -> None:
    record, names = _record(answer=(1, 1, 1)), {"hdpo/rung_rollouts/answer", "hdpo/rung_rollouts/solution"}
    several = History(CollapseMonitor(0.0), sources=("answer", "solution"))
    assert names <= several.update([record]).keys()
    assert not names & History(CollapseMonitor(0.0), sources=("answer",)).update([record]).keys()
