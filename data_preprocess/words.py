"""reasoning-gym's problems in words of five families, with steps and a reference that rewords them, as verl parquet.

What the problems are and how they are solved: word_families.py. Beside the columns of every data set there is
``extra_info.reference``, the reworded solution, for ``hdpo.privileged.solution_key``.

    train, tune, test   sums, equations and legs of the sizes in ``WEIGHTS``, nearly half of them with an animal that
                        no base model was trained on
    heldout             letters to count, which the other splits have none of: what is forgotten, or carried over

No problem is in two splits, in any wording, nor in the chats that examples/language/make_words_model.py trains its
base model on: the hash of a problem says where it belongs.

    python -m data_preprocess.words --out data/words
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_preprocess.sums import shares
from data_preprocess.word_families import FAMILIES
from data_preprocess.word_problems import HELDOUT, Problem, problems
from recipe.hdpo.data.rows import (
    DataError,
    Rejected,
    at_least,
    build_row,
    print_next,
    print_report,
    run_cli,
    schema_with,
    write_splits,
)

DATA_SOURCE = "hdpo/words"
# Shares of the problems of train, tune and test, and of the held-out split.
WEIGHTS = {
    "chain_sum_3x1": 1.0,
    "chain_sum_4x1": 1.0,
    "simple_equations_10": 1.5,
    "leg_counting_2": 1.5,
    "leg_counting_3": 1.0,
    "new_animals_2": 3.0,
    "new_animals_3": 1.5,
}
HELDOUT_WEIGHTS = {"letter_counting_3": 1.0, "letter_counting_4": 1.0}
# Seeds of the generators lie this far apart, so that their problems do not overlap.
SEED_STEP = 1_000_000
# Drawn per wanted problem before giving up: a tenth of all is test's, and small settings repeat themselves.
MAX_DRAWS_PER_PROBLEM = 200


def draw(counts: Mapping[str, Mapping[str, int]], seed: int) -> dict[str, list[Problem]]:
    """Distinct problems by part, as many of each difficulty as ``counts[part][difficulty]`` says.

    Raises:
        DataError: a generator has too few.
    """
    drawn: dict[str, list[Problem]] = {part: [] for part in counts}
    seen: set[str] = set()
    for family, kind in FAMILIES.items():
        for size in kind.sizes:
            difficulty = f"{family}_{size}"
            left = Counter({part: wanted[difficulty] for part, wanted in counts.items() if wanted.get(difficulty)})
            limit = MAX_DRAWS_PER_PROBLEM * left.total()
            stream = problems(family, size, SEED_STEP * seed)
            for _ in range(limit):
                problem = next(stream)
                if problem.key not in seen and left[problem.part] > 0:
                    seen.add(problem.key)
                    drawn[problem.part].append(problem)
                    left[problem.part] -= 1
                    if not left.total():
                        break
            if left.total():
                missing = ", ".join(f"{n} of {part}" for part, n in left.items() if n)
                raise DataError(f"{difficulty}: {missing} were not found in {limit} draws: ask for fewer rows")
    for part, found in drawn.items():
        random.Random(f"{seed}:{part}").shuffle(found)
    return drawn


def to_row(problem: Problem, split: str, index: int) -> dict[str, Any]:
    row = build_row(
        DATA_SOURCE,
        problem.text,
        problem.solution(),
        problem.answer,
        split=split,
        index=index,
        difficulty=problem.difficulty,
    )
    row["extra_info"]["reference"] = problem.reference()
    return row


def by_weight(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    return dict(zip(weights, shares(total, list(weights.values())), strict=True))


def run(args: argparse.Namespace) -> None:
    sizes = {"train": args.train_size, "tune": args.tune_size, "test": args.test_size}
    counts = {split: by_weight(size, WEIGHTS) for split, size in sizes.items()}
    counts[HELDOUT] = by_weight(args.heldout_size, HELDOUT_WEIGHTS)
    splits = {
        split: [to_row(problem, split, index) for index, problem in enumerate(found)]
        for split, found in draw(counts, args.seed).items()
    }
    paths = write_splits(args.out, splits, schema_with("reference"))
    notes = [
        f"{split} rows by difficulty: {dict(sorted(Counter(row['extra_info']['difficulty'] for row in rows).items()))}"
        for split, rows in splits.items()
    ]
    print_report(paths, splits, Rejected(), notes)
    print_next(paths, "hdpo.privileged.solution_key=extra_info.reference")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Problems in words with worked solutions, as verl parquet.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the four splits")
    parser.add_argument("--train-size", type=at_least(1), default=2000, help="training rows")
    parser.add_argument("--tune-size", type=at_least(1), default=150, help="rows to choose settings by")
    parser.add_argument("--test-size", type=at_least(1), default=300, help="rows to report")
    parser.add_argument("--heldout-size", type=at_least(1), default=100, help="rows of the family not trained on")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    return run_cli(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
