"""`make study-smoke`: a study of two arms without tuning on the real stack, with a base model that was trained briefly.

The first arm writes correct privileged rollouts over failures in TransferQueue and trains GRPO on them; the second one
distils from a frozen teacher, a second copy of the weights.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from examples.study.record import Record, read_records

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    folder = tmp_path_factory.mktemp("study")
    command = [sys.executable, "-m", "examples.study.run", "--plan", "smoke"]
    command += ["--out", str(folder / "out"), "--results", str(folder / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, {r.run.arm: r for r in read_records(folder / "results" / "runs") if r.run.phase == "report"}


def test_every_run_of_the_plan_leaves_counts_and_curves(study: tuple[Path, dict[str, Record]]) -> None:
    _, records = study
    assert set(records) == {"base", "hint_grpo", "frozen"}
    for record in records.values():
        assert len(record.problems) == 20 and all(p.n == 2 for p in record.problems)
    for arm in ("hint_grpo", "frozen"):
        assert [step for step, _ in records[arm].curves["hdpo/cliff_rate"]] == [1, 2]


def test_correct_privileged_rollouts_were_used_in_both_arms_and_distilled_in_one(
    study: tuple[Path, dict[str, Record]],
) -> None:
    for arm in ("hint_grpo", "frozen"):
        kept = [value for _, value in study[1][arm].curves["hdpo/kept_trajectories"]]
        assert 0 < sum(kept) < sum(value for _, value in study[1][arm].curves["hdpo/privileged_rollouts"])
    assert "hdpo/jsd_mean" in study[1]["frozen"].curves and "hdpo/jsd_mean" not in study[1]["hint_grpo"].curves


def test_the_report_stands_beside_the_runs_and_checkpoints_are_gone(study: tuple[Path, dict[str, Record]]) -> None:
    folder, _ = study
    text = (folder / "results" / "README.md").read_text()
    assert "hint_grpo" in text and "Not finished" not in text
    assert not list((folder / "out").glob("*/checkpoints"))


def test_a_second_call_runs_nothing_again(study: tuple[Path, dict[str, Record]]) -> None:
    folder, _ = study
    command = [sys.executable, "-m", "examples.study.run", "--plan", "smoke", "--max-runs", "0"]
    command += ["--out", str(folder / "out"), "--results", str(folder / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
