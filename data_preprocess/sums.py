"""Sums of small numbers with a worked solution, as verl parquet: the demo's data, and it needs no download.

    problem   3+8+5+2=?
    solution  3+8=11
              11+5=16
              16+2=18
              #### 18

The difficulty of a problem is its number of terms. Problems are short because the demo's model reads bytes.

    python data_preprocess/sums.py --out data/sums
"""

import argparse
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipe.hdpo.data.rows import (
    DataError,
    Rejected,
    at_least,
    build_row,
    print_next,
    print_report,
    run_cli,
    write_splits,
)

DATA_SOURCE = "hdpo/sums"


def problem_text(terms: Sequence[int]) -> str:
    """[3, 8, 5] -> "3+8+5=?"."""
    return "+".join(str(term) for term in terms) + "=?"


def solution_text(terms: Sequence[int]) -> str:
    """[3, 8, 5] -> "3+8=11", "11+5=16" and "#### 16", each on its own line."""
    lines, total = [], terms[0]
    for term in terms[1:]:
        lines.append(f"{total}+{term}={total + term}")
        total += term
    return "\n".join([*lines, f"#### {total}"])


def terms_of(number: int, count: int, max_number: int) -> tuple[int, ...]:
    """The ``number``-th of the max_number**count ordered sums: its digits in base ``max_number``, plus 1."""
    terms = []
    for _ in range(count):
        number, digit = divmod(number, max_number)
        terms.append(digit + 1)
    return tuple(reversed(terms))


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """Split ``total`` in proportion to ``weights``; the largest remainders (earliest first) get the rest."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def draw(count: int, max_number: int, train: int, test: int, seed: int) -> tuple[list, list, list[str]]:
    """(train, test, notes): sums of ``count`` terms, no problem in both.

    Test problems are distinct and at most half of all there are. Training repeats its problems where too few
    are left.
    """
    distinct = max_number**count
    rng = random.Random(f"{seed}:{count}:{max_number}")
    held_out = min(test, distinct // 2)
    pool_size = min(train, distinct - held_out)
    numbers = rng.sample(range(distinct), held_out + pool_size)
    test_numbers, pool = numbers[:held_out], numbers[held_out:]
    train_numbers = [pool[i % pool_size] for i in range(train)] if pool_size else []
    notes = []
    if held_out < test:
        notes.append(
            f"note: {count} terms: {held_out} test rows instead of {test}: there are only {distinct} problems, and "
            "half of them stay out of the test split so that the splits share none"
        )
    if pool_size < train:
        notes.append(
            f"note: {count} terms: {train} training rows repeat {pool_size} problems: "
            f"there are only {distinct}, and {held_out} are in the test split"
        )
    as_terms = [[terms_of(n, count, max_number) for n in split] for split in (train_numbers, test_numbers)]
    return as_terms[0], as_terms[1], notes


def build_splits(args: argparse.Namespace) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Rows of both splits, each shuffled, and the notes for the report."""
    sizes = range(args.min_terms, args.max_terms + 1)
    weights = args.weights or [1.0] * len(sizes)
    if args.min_terms > args.max_terms:
        raise DataError(f"--min-terms {args.min_terms} is above --max-terms {args.max_terms}: swap them")
    if len(weights) != len(sizes) or not all(0 <= w < math.inf for w in weights) or sum(weights) <= 0:
        raise DataError(
            f"--weights {' '.join(map(str, weights))}: give one weight of 0 or more, not all 0, for each of the "
            f"{len(sizes)} sizes from {args.min_terms} to {args.max_terms} terms"
        )
    drawn: dict[str, list[tuple[int, ...]]] = {"train": [], "test": []}
    notes: list[str] = []
    for count, train, test in zip(
        sizes, shares(args.train_size, weights), shares(args.test_size, [1.0] * len(sizes)), strict=True
    ):
        train_terms, test_terms, new_notes = draw(count, args.max_number, train, test, args.seed)
        drawn["train"] += train_terms
        drawn["test"] += test_terms
        notes += new_notes
    splits = {}
    for split, problems in drawn.items():
        random.Random(f"{args.seed}:{split}").shuffle(problems)
        splits[split] = [to_row(terms, split, index) for index, terms in enumerate(problems)]
    return splits, notes


def to_row(terms: Sequence[int], split: str, index: int) -> dict[str, Any]:
    return build_row(
        DATA_SOURCE,
        problem_text(terms),
        solution_text(terms),
        str(sum(terms)),
        split=split,
        index=index,
        difficulty=str(len(terms)),
    )


def run(args: argparse.Namespace) -> None:
    splits, notes = build_splits(args)
    paths = write_splits(args.out, splits)
    for split, rows in splits.items():
        counts: dict[str, int] = {}
        for row in rows:
            counts[row["extra_info"]["difficulty"]] = counts.get(row["extra_info"]["difficulty"], 0) + 1
        notes.append(f"{split} rows by number of terms: {dict(sorted(counts.items()))}")
    print_report(paths, splits, Rejected(), notes)
    print_next(paths)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Sums with worked solutions, as verl parquet.")
    parser.add_argument("--out", type=Path, required=True, help="folder for train.parquet and test.parquet")
    parser.add_argument("--train-size", type=at_least(1), default=2000, help="training rows")
    parser.add_argument("--test-size", type=at_least(1), default=200, help="test rows, the same number of each size")
    parser.add_argument("--min-terms", type=at_least(2), default=2, help="terms of the shortest sums")
    parser.add_argument("--max-terms", type=at_least(2), default=6, help="terms of the longest sums")
    parser.add_argument("--max-number", type=at_least(2), default=9, help="terms are drawn from 1 to this")
    parser.add_argument("--weights", type=float, nargs="+", help="training proportions, one per number of terms")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    return run_cli(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
