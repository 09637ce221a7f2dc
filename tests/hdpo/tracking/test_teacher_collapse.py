"""When a falling rate is reported: the teacher's with privileged prompts, the student's without."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.tracking.run_history import HISTORY_FILE, History
from recipe.hdpo.tracking.teacher_collapse import DECAY, STUDENT, CollapseMonitor


def test_the_recent_rate_weights_rollouts_by_age() -> None:
    monitor = CollapseMonitor(0.5)
    monitor.update(8, 8)
    metrics = monitor.update(0, 4)
    assert metrics["hdpo/privileged_solve_rate_recent"] == pytest.approx(DECAY * 8 / (DECAY * 8 + 4))


def test_a_fall_below_the_fraction_of_the_best_rate_is_logged_once_and_shown_every_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    monitor = CollapseMonitor(0.5)
    flags = []
    with caplog.at_level(logging.WARNING, logger="recipe.hdpo.tracking.teacher_collapse"):
        for solved in [10] * 10 + [0] * 20:
            flags.append(monitor.update(solved, 10)["hdpo/teacher_collapse"])
    # 0.9^7 = 0.478 is the first power of the decay below one half
    first = flags.index(1.0)
    weight = sum(DECAY**i for i in range(10))
    rates = [DECAY**n * weight / sum(DECAY**i for i in range(10 + n)) for n in range(20)]
    assert first == 10 + next(n for n, rate in enumerate(rates) if rate < 0.5) - 1
    assert flags[first:] == [1.0] * (30 - first)
    assert len(caplog.records) == 1 and "teacher" in caplog.text
    for _ in range(30):
        last = monitor.update(10, 10)
    assert last["hdpo/teacher_collapse"] == 0.0


def test_lucky_first_steps_are_no_best_rate() -> None:
    monitor = CollapseMonitor(0.5)
    for _ in range(9):
        monitor.update(100, 100)
    assert monitor.best == 0.0
    monitor.update(100, 100)
    assert monitor.best == 1.0


SCHEDULES = {
    "2 a step": [2] * 500,
    "16 a step": [16] * 500,
    "128 a step": [128] * 500,
    "2, then 64": [2] * 30 + [64] * 200,
    "4 to 64": list(range(4, 65)) + [64] * 200,
    "64, then 2": [64] * 30 + [2] * 200,
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_a_constant_solve_rate_hardly_ever_warns(rate: float, schedule: str) -> None:
    rollouts = SCHEDULES[schedule]
    draws = np.random.default_rng(0).binomial(rollouts, rate, size=(40, len(rollouts)))
    monitors = [CollapseMonitor(0.7) for _ in draws]
    warned = [
        any(m.update(int(s), n)["hdpo/teacher_collapse"] for s, n in zip(run, rollouts, strict=True))
        for m, run in zip(monitors, draws, strict=True)
    ]
    assert sum(warned) <= 4


def test_a_fall_that_chance_explains_does_not_warn_and_the_same_fall_of_many_rollouts_does() -> None:
    few, many = CollapseMonitor(0.7), CollapseMonitor(0.7)
    for _ in range(30):
        few.update(1, 2)
        many.update(50, 100)
    few_flags = [few.update(0, 2)["hdpo/teacher_collapse"] for _ in range(6)]
    many_flags = [many.update(0, 100)["hdpo/teacher_collapse"] for _ in range(6)]
    assert not any(few_flags) and many_flags[-1] == 1.0


def test_a_threshold_of_0_never_warns() -> None:
    never, warns = CollapseMonitor(0.0), CollapseMonitor(0.7)
    for _ in range(10):
        never.update(20, 20)
        warns.update(20, 20)
    assert not any(never.update(0, 20)["hdpo/teacher_collapse"] for _ in range(50))
    assert any(warns.update(0, 20)["hdpo/teacher_collapse"] for _ in range(50))


def test_steps_without_privileged_rollouts_change_nothing() -> None:
    monitor = CollapseMonitor(0.5)
    assert monitor.update(0, 0) == {}
    before = monitor.update(3, 4)
    assert monitor.update(0, 0) == before


def test_a_resumed_monitor_goes_on() -> None:
    monitor, resumed = CollapseMonitor(0.5), CollapseMonitor(0.5)
    monitor.update(20, 20)
    resumed.load_state_dict(monitor.state_dict())
    assert resumed == monitor and "threshold" not in monitor.state_dict()


def test_the_solve_rate_counts_solved_rollouts_whether_or_not_they_were_kept() -> None:
    """Without the R = 1 filter every rollout is kept, and the rate is still that of the solved ones."""
    history = History(CollapseMonitor(0.5))
    record = GroupRecord("a", cliff=True, solved=False, rollouts=8, solved_privileged=2, kept=8)
    other = GroupRecord("b", cliff=True, solved=False, rollouts=4, solved_privileged=1, kept=4)
    metrics = history.update([record, other])
    assert metrics["hdpo/privileged_solve_rate_recent"] == metrics["hdpo/privileged_solve_rate"] == 3 / 12
    assert history.cliffs.open_cliffs == {"a", "b"}


def test_the_student_is_watched_by_the_groups_that_it_solves_itself(caplog: pytest.LogCaptureFixture) -> None:
    history = History(CollapseMonitor(0.5), student=CollapseMonitor(0.7, STUDENT))

    def step(solved: int) -> dict[str, float]:
        plain = [GroupRecord(f"p{i}", cliff=i >= solved, solved=i < solved) for i in range(10)]
        # A lost rollout: neither; a cliff of the step before: no new try; privileged rollouts: the teacher's.
        others = [GroupRecord("lost", cliff=False, solved=False), GroupRecord("old", True, False, reissued=True)]
        taught = GroupRecord("p9", cliff=True, solved=False, rollouts=4, solved_privileged=4, reissued=True)
        return history.update([*plain, *others, taught])

    with caplog.at_level(logging.WARNING, logger="recipe.hdpo.tracking.teacher_collapse"):
        before = [step(8) for _ in range(20)]
        after = [step(1) for _ in range(20)]
    assert before[-1]["hdpo/solved_groups_recent"] == pytest.approx(0.8)
    assert not any(m["hdpo/student_collapse"] for m in before) and after[-1]["hdpo/student_collapse"] == 1.0
    assert not any(m["hdpo/teacher_collapse"] for m in after)
    assert len(caplog.records) == 1 and "prompts with a correct rollout fell to" in caplog.text


def test_a_resumed_run_remembers_the_students_best_and_an_older_checkpoint_has_none(tmp_path: Path) -> None:
    def history() -> History:
        return History(CollapseMonitor(0.5), student=CollapseMonitor(0.7, STUDENT))

    first, second, third = history(), history(), history()
    for _ in range(12):
        first.update([GroupRecord("a", cliff=False, solved=True)])
    first.save(str(tmp_path))
    second.load(str(tmp_path))
    assert second.student == first.student and second.student.best == 1.0
    path = tmp_path / HISTORY_FILE
    state = json.loads(path.read_text())
    del state["student"]
    path.write_text(json.dumps(state))
    third.load(str(tmp_path))
    assert third.student == history().student and third.cliffs == first.cliffs
