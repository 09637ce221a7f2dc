"""Rows of verl's RL parquet schema: built, checked, counted and written in one way by every data script.

    data_source   str
    prompt        list of {role, content}: the student's chat prompt, nothing privileged in it
    ability       "math"
    reward_model  {style: "rule", ground_truth: the final answer}
    extra_info    {split, index, problem, solution, answer, difficulty}; ``solution`` is privileged information

A problem that cannot become a row is rejected with a reason, counted, and named by its number in the source.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recipe.hdpo.algorithm.privileged_prompt import text_at
from recipe.hdpo.data.row_faults import row_fault
from recipe.hdpo.evaluation.wording import counted

SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    ("split", pa.string()),
                    ("index", pa.int64()),
                    ("problem", pa.string()),
                    ("solution", pa.string()),
                    ("answer", pa.string()),
                    ("difficulty", pa.string()),
                ]
            ),
        ),
    ]
)

# How many row numbers the report names for each reason.
NAMED_ROWS = 5


class DataError(ValueError):
    """The input or an option cannot be used; the message says what, where, and how to mend it."""


class Rejected:
    """Row numbers of the source that did not become rows, by reason, in the order of appearance."""

    def __init__(self) -> None:
        self.by_reason: dict[str, list[int]] = {}

    def add(self, reason: str, row_number: int) -> None:
        self.by_reason.setdefault(reason, []).append(row_number)

    def __len__(self) -> int:
        return sum(len(numbers) for numbers in self.by_reason.values())

    def lines(self) -> list[str]:
        """One line per reason: the count and the first few row numbers (counted from 0)."""
        out = []
        for reason, numbers in self.by_reason.items():
            named = ", ".join(str(n) for n in numbers[:NAMED_ROWS])
            more = ", ..." if len(numbers) > NAMED_ROWS else ""
            out.append(f"rejected {len(numbers)}: {reason} (source rows {named}{more})")
        return out


def reject_reason(
    problem: Any, solution: Any, answer: Any, prompt_text: str | None = None, *, worked: bool = True
) -> str | None:
    """Why this problem cannot become a row, or None when it can.

    ``prompt_text`` is the content of the student's prompt (default: the problem alone). A solution that stands in
    it word for word, white space aside, would make the student's prompt a privileged one. With ``worked`` false the
    data set has no worked solutions, and None is one.
    """
    for name, value in (("problem", problem), ("solution", solution), ("answer", answer)):
        if name == "solution" and value is None and not worked:
            continue
        if not isinstance(value, str) or text_at({name: value}, name) is None:
            return f"no {name}"
        if any("\ud800" <= char <= "\udfff" for char in value):
            return f"the {name} is not valid Unicode"
    if solution is None:
        return None
    shown = " ".join((problem if prompt_text is None else prompt_text).split())
    if " ".join(solution.split()) in shown:
        return "the solution stands in the prompt"
    return None


def build_row(
    data_source: str,
    problem: str,
    solution: str | None,
    answer: str,
    *,
    split: str,
    index: int,
    difficulty: str = "1",
    prompt_text: str | None = None,
    worked: bool = True,
) -> dict[str, Any]:
    """One row of the schema. Raises ValueError where ``reject_reason`` has a reason: callers ask it first."""
    reason = reject_reason(problem, solution, answer, prompt_text, worked=worked)
    if reason is not None:
        raise ValueError(f"{data_source}, {split} row {index}: {reason}")
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": problem if prompt_text is None else prompt_text}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {
            "split": split,
            "index": index,
            "problem": problem,
            "solution": solution,
            "answer": answer,
            "difficulty": difficulty,
        },
    }


def schema_with(*texts: str) -> pa.Schema:
    """:data:`SCHEMA` with further texts in ``extra_info``, after its own."""
    at = SCHEMA.get_field_index("extra_info")
    info = pa.struct([*SCHEMA.field(at).type, *((name, pa.string()) for name in texts)])
    return SCHEMA.set(at, pa.field("extra_info", info))


def write_splits(out: Path, splits: dict[str, list[dict[str, Any]]], schema: pa.Schema = SCHEMA) -> list[Path]:
    """Write OUT/<split>.parquet for every split; a reader never sees half a file.

    All splits are first written to temporary files beside their targets and then renamed, so a failure while
    writing leaves the former files as they were.

    Raises:
        DataError: an empty split, an unusable folder, or a row that the schema has no place for, or that lacks a prompt
            or a ground truth: nothing of a row is dropped.
    """
    for split, rows in splits.items():
        if not rows:
            raise DataError(f"no usable row for the {split} split, nothing was written to {out}")
        for number, row in enumerate(rows):
            fault = row_fault(row, schema)
            if fault is not None:
                raise DataError(f"row {number} of the {split} split: {fault}; nothing was written to {out}")
    pending: list[tuple[Path, Path]] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for split, rows in splits.items():
            temporary, target = out / f".{split}.parquet.{os.getpid()}.tmp", out / f"{split}.parquet"
            pending.append((temporary, target))
            pq.write_table(_table(rows, split, schema), temporary)
        for temporary, target in pending:
            os.replace(temporary, target)
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error}; choose another folder with --out") from error
    finally:
        for temporary, _ in pending:
            temporary.unlink(missing_ok=True)
    return [target for _, target in pending]


def _table(rows: list[dict[str, Any]], split: str, schema: pa.Schema) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, UnicodeEncodeError) as error:
        for number, row in enumerate(rows):
            for field in schema:
                try:
                    pa.array([row.get(field.name)], field.type)
                except (pa.ArrowException, UnicodeEncodeError) as reason:
                    where = f"row {number} of the {split} split: {field.name} must be {field.type}"
                    raise DataError(f"{where} ({reason})") from error
        raise


def print_report(paths: list[Path], splits: dict[str, list[Any]], rejected: Rejected, notes: list[str]) -> None:
    """What was written and where, what was rejected and why, what else the user should know."""
    for path, rows in zip(paths, splits.values(), strict=True):
        print(f"wrote {counted(len(rows), 'row')} to {path}")
    for line in rejected.lines() + notes:
        print(line)
    if not len(rejected):
        print("rejected 0")


def print_next(paths: list[Path], *flags: str, reward: str = "pkg://recipe.hdpo.reward") -> None:
    """The command that trains on the written files: MODEL is the user's to say, and the sizes are one to begin with."""
    files = {path.stem: path for path in paths}
    command = [
        *("python", "-m", "verl.trainer.main_ppo"),
        *("--config-path", "pkg://recipe.hdpo.config", "--config-name", "hdpo_trainer"),
        f"data.train_files={files['train']}",
        f"data.val_files={files['test']}",
        *("data.train_batch_size=32", "data.max_prompt_length=1024", "data.max_response_length=2048"),
        "actor_rollout_ref.model.path=MODEL",
        *("actor_rollout_ref.actor.ppo_mini_batch_size=32", "actor_rollout_ref.actor.use_dynamic_bsz=true"),
        "trainer.logger=[console,tensorboard]",
        f"reward.custom_reward_function.path={reward}",
        *flags,
    ]
    print(f"next: {shlex.join(command)}")


def run_cli(run: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Exit code of a data script: 0, or 2 with one line on stderr where input or options are unusable."""
    try:
        run(args)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def at_least(minimum: int) -> Callable[[str], int]:
    """An argparse type: a whole number that is not below ``minimum``."""

    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is below {minimum}")
        return value

    return parse
