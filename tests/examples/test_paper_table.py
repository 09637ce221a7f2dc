"""The paper's tables beside one's own runs: values by hand, and that the launcher's arms are those of the table."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from examples.paper import table

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "examples/paper/runs.sh"
PAPER = table.paper_tables()


def write_log(file: Path, values: dict[int, float], metric: str = "pass@1", source: str = "m/x") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    names = {f"val-hdpo/{source}/{metric}"} | {f"val-hdpo/{source}/pass@1"}
    lines = [json.dumps({"step": step, "data": dict.fromkeys(names, value)}) for step, value in values.items()]
    file.write_text("\n".join(lines) + "\n")


def commands(*overrides: str, **env: str) -> list[list[str]]:
    done = subprocess.run(
        ["bash", str(LAUNCHER), *overrides],
        env={**os.environ, "DRY": "1", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("env ")]


def test_a_resumed_run_counts_the_later_starts_value_and_best_and_last_are_told_apart(tmp_path: Path) -> None:
    write_log(tmp_path / "grpo/seed1/20260101T000000.jsonl", {10: 0.5, 20: 0.9})
    write_log(tmp_path / "grpo/seed1/20260101T100000.jsonl", {20: 0.7, 30: 0.6})
    [run] = table.read_runs(tmp_path)
    assert (run.arm, run.seed) == ("grpo", "seed1")
    assert run.best("pass@1") == 0.7
    assert run.last("pass@1") == 0.6


def test_the_interval_over_seeds_is_students_t_and_a_single_seed_has_none() -> None:
    """2, 4, 6: mean 4, deviation 2, t_{0.975, 2} = 4.302653, half width 4.302653 * 2 / sqrt(3)."""
    found = table.over_seeds([2.0, 4.0, 6.0])
    assert (found.estimate, found.low, found.high) == pytest.approx((4.0, 4 - 4.968276, 4 + 4.968276), abs=1e-6)
    alone = table.over_seeds([0.3])
    assert (alone.estimate, alone.low, alone.high) == (0.3, None, None)


def test_differences_are_paired_by_seed_and_stand_beside_the_papers(tmp_path: Path) -> None:
    for seed, base, own in ((1, 0.60, 0.62), (2, 0.70, 0.72), (3, 0.10, 0.12)):
        write_log(tmp_path / f"grpo/seed{seed}/a.jsonl", {10: base}, "pass@8")
        write_log(tmp_path / f"frozen_0.1/seed{seed}/a.jsonl", {10: own}, "pass@8")
    write_log(tmp_path / "frozen_0.1/seed9/a.jsonl", {10: 1.0}, "pass@8")  # no GRPO run of this seed
    lines = table.tables(table.read_runs(tmp_path), PAPER).splitlines()
    [gain, _] = [line for line in lines if line.startswith("| frozen_0.1 | here, 3 seeds |")]
    assert gain.split(" | ")[-1] == "+0.020 [+0.020, +0.020] |"
    [of_paper, _] = [line for line in lines if line.startswith("| frozen_0.1 | paper, 8 x H200 (Table 1) |  | -")]
    assert of_paper == "| frozen_0.1 | paper, 8 x H200 (Table 1) |  | -0.0215 | +0.0063 | +0.0170 |"


def test_runs_that_were_not_evaluated_equally_often_are_refused_by_name(tmp_path: Path) -> None:
    write_log(tmp_path / "grpo/seed1/a.jsonl", {10: 0.5, 20: 0.5})
    write_log(tmp_path / "frozen_0.1/seed1/a.jsonl", {10: 0.5})
    with pytest.raises(ValueError, match=r"frozen_0.1/seed1 were not evaluated at the steps of grpo/seed1"):
        table.read_runs(tmp_path)


def test_several_data_sources_want_a_choice_and_a_folder_without_runs_says_what_to_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table.main([str(tmp_path)]) == 2
    assert "no ARM/SEED/*.jsonl in it" in capsys.readouterr().err
    data = {"val-hdpo/a/b/pass@1": 0.25, "val-hdpo/c/pass@1": 0.75}
    file = tmp_path / "grpo/seed1/a.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"step": 10, "data": data}) + "\n")
    with pytest.raises(ValueError, match=r"evaluations of a/b, c: choose one with --source"):
        table.read_runs(tmp_path)
    assert table.read_runs(tmp_path, "a/b")[0].last("pass@1") == 0.25
    assert table.main([str(tmp_path), "--source", "c"]) == 0
    assert "| grpo | here, 1 seed |  | 0.750 |" in capsys.readouterr().out


def test_the_launcher_runs_every_arm_of_the_table_with_its_overrides_a_whole_round_a_seed(tmp_path: Path) -> None:
    found = commands("trainer.test_freq=50", RUNS=str(tmp_path), SEEDS="42 43")
    names = [re.fullmatch(r"NAME=paper-(.+)-seed(\d+)", command[1]) for command in found]
    pairs = [(name[1], int(name[2])) for name in names if name]
    assert pairs == [(arm, seed) for seed in (42, 43) for arm in PAPER["arms"]]
    for (arm, seed), command in zip(pairs, found, strict=True):
        assert command[2].startswith(f"VERL_FILE_LOGGER_PATH={tmp_path}/{arm}/seed{seed}/")
        assert command[3:5] == ["bash", "examples/qwen2.5_math_1.5b_8gpu.sh"]
        assert command[-1] == "trainer.test_freq=50"
        assert command[-1 - len(PAPER["arms"][arm]) : -1] == PAPER["arms"][arm]
        assert {part.partition("=")[2] for part in command if "seed=" in part and "." in part.partition("=")[0]} == {
            str(seed)
        }
    assert all(set(rows) == set(PAPER["arms"]) for rows in PAPER["tables"].values())


def test_the_launcher_skips_finished_runs_and_refuses_an_unknown_arm(tmp_path: Path) -> None:
    done = tmp_path / "grpo/seed42/done"
    done.parent.mkdir(parents=True)
    done.touch()
    [only] = commands(RUNS=str(tmp_path), ARMS="grpo frozen_0.1", SEEDS="42")
    assert only[1] == "NAME=paper-frozen_0.1-seed42"
    env = {**os.environ, "DRY": "1", "RUNS": str(tmp_path), "ARMS": "sft"}
    failed = subprocess.run(["bash", str(LAUNCHER)], env=env, capture_output=True, text=True)
    assert failed.returncode == 2 and "unknown arm sft" in failed.stderr


def test_the_papers_figures_are_those_of_the_documents() -> None:
    page = (ROOT / "docs/paper.md").read_text()
    names = {"grpo": "GRPO", "frozen": "HDPO, frozen, λ = ", "drifting": "HDPO, drifting, λ = "}
    for arm, figures in PAPER["tables"]["8 x H200 (Table 1)"].items():
        name = names[arm.partition("_")[0]] + arm.partition("_")[2]
        assert f"| {name} | {' | '.join(f'{value:.4f}' for value in figures)} |" in page
