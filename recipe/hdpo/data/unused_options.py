"""Options of the command that its sources have no use for: each is refused, since it would change nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from recipe.hdpo.data.rows import DataError
from recipe.hdpo.data.sources import on_hub

# The default of --split.
SPLIT = "train"
# What generated tasks have no use for.
_OF_FILES = (
    *("sources", "preset", "problem", "solution", "answer", "difficulty", "instruction", "only", "join_texts"),
    *("no_grading", "data_source", "test", "config", "test_split"),
)


def check_gym(args: argparse.Namespace) -> None:
    """Refuse what ``--gym`` has no use for. Raises DataError."""
    given = [name for name in _OF_FILES if getattr(args, name) not in (None, False, [])]
    given += ["split"] if args.split != SPLIT else []
    if given:
        options = ", ".join("SOURCE" if name == "sources" else _flag(name) for name in given)
        raise DataError(f"--gym generates its rows and has no use for {options}: leave it out")


def check_files(args: argparse.Namespace, sources: Sequence[str]) -> None:
    """Refuse options of a data set on the hub where the rows that they are for come from files. Raises DataError.

    Args:
        sources: of the training rows, and of the test split where ``--test`` names none.
    """
    tests = args.test or sources[:1]
    for name, is_given, of in (
        ("config", args.config is not None, [*sources, *tests]),
        ("split", args.split != SPLIT, sources),
        ("test_split", args.test_split is not None, tests),
    ):
        if is_given and not any(map(on_hub, of)):
            raise DataError(
                f"{_flag(name)} {getattr(args, name)} is for a data set on the hub, and {', '.join(dict.fromkeys(of))} "
                "has none: leave it out; a file is read whole, and --test FILE names rows of the test split"
            )
    if args.gym_config:
        raise DataError("--gym-config is for --gym TASK: leave it out, or name the tasks")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
