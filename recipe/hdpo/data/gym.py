"""Rows from reasoning-gym's generators: problems without worked solutions, and a verifier that says what is wrong."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from typing import Any

from recipe.hdpo.answers import gym
from recipe.hdpo.data.rows import DataError, Rejected, build_row, print_next, print_report, reject_reason, write_splits

INSTRUCTION = 'Reason step by step, then write "####" and after it nothing but the final answer.'
REWARD = "pkg://recipe.hdpo.gym_reward"
# Drawn per wanted row before giving up: easy settings repeat themselves.
MAX_DRAWS_PER_ROW = 20


def run_gym(args: argparse.Namespace) -> None:
    """Generate, write, and say what was left out. Raises DataError where a task or its settings are unusable."""
    rejected, rows = Rejected(), []
    wanted = args.max_rows or 2000
    tasks = list(dict.fromkeys(args.gym))
    for number, task in enumerate(tasks):
        # As even as possible; the first ones have one more.
        size = wanted // len(tasks) + (number < wanted % len(tasks))
        rows += _collect(task, args.gym_config.get(task, {}), size, args.seed, rejected)
    if strangers := sorted(set(args.gym_config) - set(tasks)):
        raise DataError(f"--gym-config names {', '.join(strangers)}, and the tasks are {', '.join(tasks)}")
    random.Random(args.seed).shuffle(rows)
    held_out = max(1, round(args.test_fraction * len(rows)))
    if held_out >= len(rows):
        raise DataError(f"{len(rows)} rows leave no training rows at --test-fraction {args.test_fraction}")
    parts = {"train": rows[held_out:], "test": rows[:held_out]}
    splits = {split: [_row(split, i, **fields) for i, fields in enumerate(part)] for split, part in parts.items()}
    paths = write_splits(args.out, splits)
    print_report(paths, splits, rejected, [])
    print_next(paths, "+control=feedback", "reward.custom_reward_function.name=compute_score", reward=REWARD)


def _row(split: str, index: int, data_source: str, shown: str, **fields: Any) -> dict[str, Any]:
    row = build_row(data_source, split=split, index=index, **fields)
    # The ground truth is for the verifier; this is what hdpo.privileged.answer_key may name.
    row["extra_info"]["answer"] = shown
    return row


def _collect(task: str, config: dict[str, Any], wanted: int, seed: int, rejected: Rejected) -> list[dict[str, Any]]:
    """The first ``wanted`` usable and distinct problems of a task, as arguments of ``build_row``."""
    kept: dict[str, dict[str, Any]] = {}
    drawn = 0
    for drawn, entry in enumerate(_entries(task, config, MAX_DRAWS_PER_ROW * wanted, seed), 1):
        problem, answer, truth = entry["question"].strip(), str(entry["answer"]), gym.ground_truth(task, entry)
        prompt_text = f"{problem}\n{INSTRUCTION}"
        reason = reject_reason(problem, None, truth, prompt_text, worked=False)
        if reason is None and problem in kept:
            reason = f"{task}: the same problem as an earlier row"
        if reason is None and gym.score(truth, answer) < 1.0:
            reason = f"{task}: its verifier does not accept the generator's own answer"
        if reason is not None:
            rejected.add(reason, drawn - 1)
            continue
        kept[problem] = {
            "data_source": f"reasoning_gym/{task}",
            "problem": problem,
            "solution": None,
            "answer": truth,
            "shown": answer,
            "difficulty": task,
            "prompt_text": prompt_text,
            "worked": False,
        }
        if len(kept) == wanted:
            return list(kept.values())
    raise DataError(
        f"{task} gave {len(kept)} usable problems in {drawn} draws, {wanted} were asked for: lower --max-rows, or make "
        f"it harder by --gym-config. {'; '.join(rejected.lines())}"
    )


def _entries(task: str, config: dict[str, Any], size: int, seed: int) -> Iterator[dict[str, Any]]:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise DataError(f"the generators are not installed ({error}): pip install reasoning-gym") from error
    if task not in DATASETS:
        raise DataError(f"--gym {task}: reasoning-gym has no such task. It has {', '.join(sorted(DATASETS))}")
    if task in gym.RUN_ANSWERS_AS_CODE:
        raise DataError(f"--gym {task}: its verifier runs a model's answers as code, which is not safe: take another")
    try:
        generator = reasoning_gym.create_dataset(task, size=size, seed=seed, **config)
    except (TypeError, AssertionError, ValueError) as error:
        raise DataError(f"--gym {task}: its settings {config} are not accepted ({error})") from error
    return (generator[i] for i in range(len(generator)))
