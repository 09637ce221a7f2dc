"""The first arm of `make study-smoke` on the real stack, without tuning, with a base model that was trained briefly.

This arm writes correct privileged rollouts over failures in TransferQueue and trains GRPO on them. The other one
distils from a frozen teacher, as test_training.py does; starting the stack once more takes minutes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from examples.study.record import Record
from examples.study.result_files import read_records

pytestmark = [pytest.mark.e2e, pytest.mark.study]
ROOT = Path(__file__).parents[2]
SMOKE = [sys.executable, "-m", "examples.study.run", "--plan", "smoke", "--arms", "hint_grpo"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    folder = tmp_path_factory.mktemp("study")
    command = [*SMOKE, "--out", str(folder / "out"), "--results", str(folder / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, {r.run.arm: r for r in read_records(folder / "results" / "runs") if r.run.phase == "report"}


def test_every_run_of_the_plan_leaves_counts_and_curves(study: tuple[Path, dict[str, Record]]) -> None:
    _, records = study
    assert set(records) == {"base", "hint_grpo"}
    for record in records.values():
        assert len(record.problems) == 20 and all(p.n == 2 for p in record.problems)
    assert [step for step, _ in records["hint_grpo"].curves["hdpo/cliff_rate"]] == [1, 2]


def test_correct_privileged_rollouts_were_used_and_none_was_distilled(study: tuple[Path, dict[str, Record]]) -> None:
    curves = study[1]["hint_grpo"].curves
    kept = [value for _, value in curves["hdpo/kept_trajectories"]]
    assert 0 < sum(kept) < sum(value for _, value in curves["hdpo/privileged_rollouts"])
    assert "hdpo/jsd_mean" not in curves


def test_every_cliff_was_re_issued_in_its_own_step(study: tuple[Path, dict[str, Record]]) -> None:
    curves = study[1]["hint_grpo"].curves
    cliffs = [round(8 * rate) for _, rate in curves["hdpo/cliff_rate"]]
    assert [value for _, value in curves["hdpo/privileged_rollouts"]] == [2 * n for n in cliffs]


def test_the_report_stands_beside_the_runs_and_checkpoints_are_gone(study: tuple[Path, dict[str, Record]]) -> None:
    folder, _ = study
    text = (folder / "results" / "README.md").read_text()
    assert "1 of 2 reported runs are done" in text and "| hint_grpo | 1 | " in text
    assert not list((folder / "out").glob("*/checkpoints"))


def test_a_second_call_runs_nothing_again(study: tuple[Path, dict[str, Record]]) -> None:
    folder, _ = study
    command = [*SMOKE, "--max-runs", "0", "--out", str(folder / "out"), "--results", str(folder / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
