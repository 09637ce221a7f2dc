"""Preflight: is HDPO for this model and this data?

    python -m recipe.hdpo.preflight --model MODEL --data train.parquet --out outputs/preflight

MODEL is a Hugging Face folder or a verl checkpoint (.../global_step_N). The same command run again draws only what is
missing. ``--out`` gets a folder for each kind of rollouts, preflight.json and preflight.html.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipe.hdpo.algorithm.leakage import read_phrases
from recipe.hdpo.evaluation.problems import read_problems
from recipe.hdpo.preflight.arguments import check_arguments, parser

JSON, PAGE = "preflight.json", "preflight.html"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (2 after an error that the user can mend)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(argv)
    try:
        check_arguments(args)
        preflight(args, shlex.join(["python", "-m", "recipe.hdpo.preflight", *argv]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Stopped. What was drawn is in {args.out}; the same command draws the rest.", file=sys.stderr)
        return 130
    return 0


def preflight(args: argparse.Namespace, command: str) -> dict[str, Any]:
    """Everything that the command does; returns what preflight.json holds."""
    if args.phrases:
        read_phrases(args.phrases)
    problems = read_problems(args.data, args.limit)
    # vLLM and transformers take seconds to import.
    from recipe.hdpo.preflight.advice import command as shell_command
    from recipe.hdpo.preflight.drawing import draw
    from recipe.hdpo.preflight.numbers import compute
    from recipe.hdpo.preflight.page import html_page
    from recipe.hdpo.preflight.verdict import judge

    drawn = draw(args, problems, command)
    numbers = compute(args, problems, drawn)
    verdict = judge(args, numbers)
    settings = _settings(args, command)
    found = {"verdict": verdict.as_dict(), "settings": settings, **numbers}
    _write(args.out / JSON, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    _write(args.out / PAGE, html_page(numbers, verdict, drawn, settings))
    print("\n".join(["", verdict.headline, *verdict.sentences]))
    for entry in numbers["left_out"]:
        print(f"{entry['count']} {entry['what']}: {'; '.join(entry['named'])}")
    if verdict.flags:
        print(f"\nSettings that follow:\n{shell_command(verdict.flags)}")
    print(f"\nPage: {args.out / PAGE}\nFigures: {args.out / JSON}")
    return found


def _settings(args: argparse.Namespace, command: str) -> dict[str, Any]:
    """How all of it was made, ready for JSON."""
    shown = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    return shown | {"data": " ".join(map(str, args.data)), "sources": " ".join(args.sources), "command": command}


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
