"""The command that turns a file or a data set of the hub into verl's parquet files."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipe.hdpo import math_process
from recipe.hdpo.data.convert import Conversion, build, convert, divide, same_text
from recipe.hdpo.data.gym import run_gym
from recipe.hdpo.data.presets import BOXED, PRESETS, Preset
from recipe.hdpo.data.rows import DataError, Rejected, at_least, print_next, print_report, run_cli, write_splits
from recipe.hdpo.data.sources import on_hub, read, with_columns
from recipe.hdpo.data.unused_options import SPLIT, check_files, check_gym
from recipe.hdpo.evaluation.arguments import json_object

SHOWN_ROWS = 2
_SHOWN_CHARS = 400

EPILOG = f"""\
examples:
  python -m recipe.hdpo.data --preset gsm8k --out data/gsm8k
  python -m recipe.hdpo.data mine.jsonl --problem question --solution rationale --answer final --out data/mine
  python -m recipe.hdpo.data verl.parquet --problem extra_info.question --solution extra_info.answer --out data/mine
  python -m recipe.hdpo.data OWNER/NAME --split train --problem problem --answer answer --out data/mine
  python -m recipe.hdpo.data --gym chain_sum gcd --gym-config '{{"chain_sum": {{"max_terms": 4}}}}' --out data/gym

columns: a dotted name looks into an object, also one that is written as JSON text. Without --solution there are no
worked solutions, and the next command adds +control=answer_only. Without --answer the final answer is what the solution
ends with: after #### or in \\boxed{{}}. --only takes values as JSON or Python writes them.

presets:
{chr(10).join(f"  {name:<18} {preset.hub}: {preset.about}" for name, preset in PRESETS.items())}
"""


def run(args: argparse.Namespace) -> None:
    """Convert, write, and say what was left out. Raises DataError where input or options are unusable."""
    if not 0 < args.test_fraction < 1:
        raise DataError(f"--test-fraction {args.test_fraction}: it must lie between 0 and 1")
    if args.gym:
        check_gym(args)
        return run_gym(args)
    preset = preset_of(args)
    conversion = Conversion(preset, dict(args.only), args.join_texts, not args.no_grading)
    sources = args.sources or [preset.hub]
    if not sources[0]:
        raise DataError("name a file or a data set of the hub (OWNER/NAME), or a --preset")
    check_files(args, sources)
    config, rejected, lines = args.config or preset.config, Rejected(), []
    try:
        tests = args.test or _hub_test(args, preset, sources)
        held_out: list[dict[str, Any]] = []
        if tests:
            of_test = Rejected()
            rows = _rows(tests, conversion, config, args.test_split or preset.test_split or "test")
            held_out = convert(rows, conversion, of_test)
            lines = [f"test split: {line}" for line in of_test.lines()]
        taken = {same_text(fields["problem"]) for fields in held_out}
        rows = _rows(sources, conversion, config, args.split)
        kept = convert(rows, conversion, rejected, args.max_rows or preset.max_rows, taken)
    finally:
        math_process.stop()
    parts = {"train": kept, "test": held_out} if tests else divide(kept, args.test_fraction, args.seed)
    name = args.data_source or preset.hub or _name(sources[0])
    splits = build(name, parts, worked=preset.solution is not None)
    paths = write_splits(args.out, splits)
    print_report(paths, splits, rejected, lines)
    show(splits["train"])
    print_next(paths, *([] if preset.solution else ["+control=answer_only"]))


def preset_of(args: argparse.Namespace) -> Preset:
    """The preset with the columns that the command line names in their place.

    A column of the user's own is read as it stands.
    """
    named = {name: value for name in ("problem", "solution", "answer", "difficulty") if (value := getattr(args, name))}
    if args.preset is None:
        if "problem" not in named or not {"solution", "answer"} & set(named):
            raise DataError("name the columns, --problem and --solution or --answer or both, or take a --preset")
        base = Preset(about="", hub="", problem="", solution=None, answer=None, instruction=BOXED)
    else:
        base = PRESETS[args.preset]
    changes: dict[str, Any] = dict(named)
    for name in named:
        if args.preset is not None and name != "difficulty":
            changes[f"read_{name}"] = Preset.read_problem
    if args.instruction is not None:
        changes["instruction"] = args.instruction
    return dataclasses.replace(base, **changes)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the first rows as a reader wants to see them."""
    for row in rows[:SHOWN_ROWS]:
        info = row["extra_info"]
        print(f"row {info['index']} of {info['split']}:")
        for name, text in (
            ("prompt", row["prompt"][0]["content"]),
            ("solution", info["solution"]),
            ("ground truth", row["reward_model"]["ground_truth"]),
        ):
            text = "none" if text is None else text
            cut = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]} ... ({len(text)} characters)"
            print(f"  {name}: " + cut.replace("\n", "\n    "))


def _rows(sources: Sequence[str], conversion: Conversion, config: str | None, split: str) -> Any:
    keys = conversion.keys
    read_all = (with_columns(read(s, config=config, split=split, keys=keys), s, keys) for s in sources)
    return itertools.chain.from_iterable(read_all)


def _hub_test(args: argparse.Namespace, preset: Preset, sources: list[str]) -> list[str]:
    """Where the test split is on the hub: the user's words, or the preset's as long as no file is named."""
    is_there = args.test_split or (preset.test_split and not args.sources)
    return sources[:1] if is_there and on_hub(sources[0]) else []


def _name(source: str) -> str:
    return source if on_hub(source) else Path(source).stem


def _only(text: str) -> tuple[str, list[str]]:
    key, sign, values = text.partition("=")
    if not (key and sign and values):
        raise argparse.ArgumentTypeError(f"{text!r} is not COLUMN=VALUE[,VALUE ...]")
    return key, values.split(",")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(
        prog="python -m recipe.hdpo.data",
        description="Turn JSON lines, JSON, CSV, parquet or a data set of the hub into verl's parquet files.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("sources", nargs="*", metavar="SOURCE", help="files, or OWNER/NAME on the hub (default: the preset's)")
    add("--out", type=Path, required=True, help="folder for train.parquet and test.parquet")
    add("--preset", choices=sorted(PRESETS), help="columns and their forms of a well-known data set, see below")
    add("--problem", metavar="COLUMN", help="the problem: a text, or a conversation of one message")
    add("--solution", metavar="COLUMN", help="the worked solution, which privileged prompts show")
    add("--answer", metavar="COLUMN", help="the final answer, which the reward compares with")
    add("--difficulty", metavar="COLUMN", help="kept for reports by difficulty")
    add("--instruction", metavar="TEXT", help=f"follows the problem in the prompt; '' for none (default: {BOXED})")
    add("--only", type=_only, action="append", default=[], metavar="COLUMN=VALUE,...", help="keep such rows alone")
    add("--join-texts", action="store_true", help="a list of texts is one text, joined by line breaks")
    add("--no-grading", action="store_true", help="do not grade answers against themselves (slow for many formulas)")
    add("--data-source", metavar="NAME", help="data_source of the rows (default: SOURCE)")
    add("--max-rows", type=at_least(2), metavar="N", help="stop after so many distinct problems")
    add("--test", nargs="+", metavar="FILE", help="rows of the test split; training has none of their problems")
    add("--test-fraction", type=float, default=0.05, help="else the share of the problems held out (0.05)")
    add("--seed", type=int, default=42, help="decides which problems are held out (42)")
    add("--config", metavar="NAME", help="configuration of a data set on the hub")
    add("--split", default=SPLIT, metavar="NAME", help="its split for training (train)")
    add("--test-split", metavar="NAME", help="its split for the test")
    add("--gym", nargs="+", metavar="TASK", help="generate reasoning-gym's tasks (--max-rows in all, 2000 by default)")
    add("--gym-config", type=json_object, default={}, metavar="JSON", help='their settings: {"TASK": {"NAME": VALUE}}')
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 with one line on stderr where input or options are unusable."""
    return run_cli(run, parser().parse_args(argv))
