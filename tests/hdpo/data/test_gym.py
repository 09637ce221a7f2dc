"""Rows from reasoning-gym's generators."""

from __future__ import annotations

import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recipe.hdpo.answers import gym
from recipe.hdpo.data.command import main
from recipe.hdpo.data.gym import INSTRUCTION

EASY = '{"chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}'


def test_rows_are_distinct_solvable_and_even_over_the_tasks(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--gym", "chain_sum", "leg_counting", "--max-rows", "41", "--out", str(tmp_path)]) == 0
    train, test = (pq.read_table(tmp_path / f"{split}.parquet").to_pylist() for split in ("train", "test"))
    assert (len(train), len(test)) == (39, 2)
    rows = train + test
    tasks = [row["extra_info"]["difficulty"] for row in rows]
    assert (tasks.count("chain_sum"), tasks.count("leg_counting")) == (21, 20)
    assert len({row["extra_info"]["problem"] for row in rows}) == 41
    for row in rows:
        info = row["extra_info"]
        assert gym.score(row["reward_model"]["ground_truth"], info["answer"]) == 1.0
        assert row["prompt"][0]["content"] == f"{info['problem']}\n{INSTRUCTION}"
        assert info["solution"] is None and row["data_source"] == f"reasoning_gym/{info['difficulty']}"
    printed = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert "+control=feedback" in printed
    assert "reward.custom_reward_function.path=pkg://recipe.hdpo.gym_reward" in printed


def test_the_same_seed_gives_the_same_rows_and_the_settings_are_the_tasks(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        more = ["--seed", seed, "--gym-config", EASY, "--out", str(tmp_path / name)]
        assert main(["--gym", "chain_sum", "--max-rows", "20", *more]) == 0
    a, b, c = ((tmp_path / name / "train.parquet").read_bytes() for name in "abc")
    assert a == b != c
    problems = [row["extra_info"]["problem"] for row in pq.read_table(tmp_path / "a/train.parquet").to_pylist()]
    assert all(len(problem.partition(": ")[2]) == len("1 + 2 =") for problem in problems)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["rows.jsonl", "--gym", "gcd", "--split", "test"],
            "--gym generates its rows and has no use for SOURCE, --split",
        ),
        (["--gym", "gcd", "--join-texts", "--test", "a.csv"], "has no use for --join-texts, --test: leave it out"),
        (["--gym", "no_such"], "has no such task. It has "),
        (["--gym", "countdown"], "runs a model's answers as code"),
        (["--gym", "gcd", "--gym-config", '{"lcm": {}}'], "--gym-config names lcm, and the tasks are gcd"),
        (["--gym", "gcd", "--gym-config", '{"gcd": {"none": 1}}'], "are not accepted"),
        (["--gym", "chain_sum", "--gym-config", EASY, "--max-rows", "500"], "lower --max-rows, or make it harder"),
        (["--gym", "rubiks_cube", "--max-rows", "2"], "its verifier does not accept the generator's own answer"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    assert main(["--max-rows", "10", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
