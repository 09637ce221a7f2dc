"""nvidia/OpenMathInstruct-2 (MATH and GSM8K problems and augmentations of them), as verl parquet.

Columns read: problem, generated_solution (the privileged information), expected_answer, problem_source. The data set
holds many solutions of one problem; the first usable one is kept. Of these problems 5 % are held out, by seed 42, as in
the paper. Which ones depends on the seed and on their text alone, so no later run with more rows moves a problem from
test to training.

    python data_preprocess/openmathinstruct2.py --out data/openmathinstruct2
    python data_preprocess/openmathinstruct2.py --out data/openmathinstruct2 --input train-00000-of-00032.parquet
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from recipe.hdpo.answers.compare import same_answer
from recipe.hdpo.data.rows import (
    DataError,
    Rejected,
    at_least,
    build_row,
    print_next,
    print_report,
    reject_reason,
    run_cli,
    write_splits,
)
from recipe.hdpo.math_answer import final_answer, joint_answer

DATA_SOURCE = "nvidia/OpenMathInstruct-2"
COLUMNS = ("problem", "generated_solution", "expected_answer", "problem_source")
INSTRUCTION = r"Reason step by step and put the final answer in \boxed{}."


def read_hub() -> Iterator[dict[str, Any]]:
    """Rows streamed from the Hugging Face hub. Raises DataError where it cannot be reached."""
    from datasets import load_dataset

    try:
        yield from load_dataset(DATA_SOURCE, split="train", streaming=True).select_columns(list(COLUMNS))
    except Exception as error:  # the hub client raises errors of many libraries
        raise DataError(
            f"cannot read {DATA_SOURCE} from the Hugging Face hub ({type(error).__name__}): check the network, or "
            "get a file of the data set and pass it with --input FILE.parquet or FILE.jsonl"
        ) from error


def read_file(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a local .parquet or .jsonl file with the data set's columns. Raises DataError where it is unusable."""
    readers = {".parquet": read_parquet, ".jsonl": read_jsonl}
    if path.suffix not in readers:
        raise DataError(f"--input {path}: the name must end in .parquet or .jsonl")
    if not path.is_file():
        raise DataError(f"--input {path}: no such file")
    rows = readers[path.suffix](path)
    first = next(rows, None)
    if first is None:
        raise DataError(f"--input {path}: the file has no rows")
    missing = [name for name in COLUMNS if name not in first]
    if missing:
        raise DataError(f"--input {path}: no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    yield first
    yield from rows


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in COLUMNS if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=1000, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"--input {path}: not a whole parquet file ({error}); get it again") from error


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"--input {path}, line {number}: not JSON ({error}); get the file again") from error
                if not isinstance(row, dict):
                    raise DataError(f"--input {path}, line {number}: not a JSON object; each line must be one row")
                yield row
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"--input {path}: cannot be read as UTF-8 text ({error})") from error


def is_test(problem: str, test_fraction: float, seed: int) -> bool:
    """Whether the problem belongs to the test split: SHA-256 of seed and text, as a number in [0, 1), is below the
    fraction."""
    digest = hashlib.sha256(f"{seed}\n{problem}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < test_fraction * 2**64


def usable(row: dict[str, Any], sources: Sequence[str] | None) -> tuple[dict[str, str], str | None]:
    """(arguments of ``build_row``, None), or ({}, why the row is rejected)."""
    if sources and row.get("problem_source") not in sources:
        return {}, "another problem_source"
    problem, solution, answer = (_stripped(row.get(name)) for name in COLUMNS[:3])
    prompt_text = f"{problem}\n{INSTRUCTION}"
    reason = reject_reason(problem, solution, answer, prompt_text)
    if reason is not None:
        return {}, reason
    stated = [text for text in (final_answer(solution), joint_answer(solution)) if text is not None]
    if stated and all(same_answer(text, answer) is False for text in stated):
        return {}, "the solution states another answer than expected_answer"
    return {"problem": problem, "solution": solution, "answer": answer, "prompt_text": prompt_text}, None


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def collect(
    rows: Iterable[dict[str, Any]], max_rows: int, sources: Sequence[str] | None, rejected: Rejected
) -> list[dict[str, str]]:
    """The first usable row of each problem, until there are ``max_rows``."""
    kept: dict[str, dict[str, str]] = {}
    with tqdm(rows, desc="reading", unit="row", mininterval=1.0) as bar:
        for number, row in enumerate(bar):
            fields, reason = usable(row, sources)
            key = "" if reason else " ".join(fields["problem"].split())
            if reason is None and key in kept:
                reason = "a further solution of a problem that has one"
            if reason is not None:
                rejected.add(reason, number)
                continue
            kept[key] = fields
            if len(kept) % 1000 == 0:
                bar.set_postfix(problems=len(kept))
            if len(kept) == max_rows:
                break
    return list(kept.values())


def run(args: argparse.Namespace) -> None:
    if not 0 < args.test_fraction < 1:
        raise DataError(f"--test-fraction {args.test_fraction}: it must lie between 0 and 1")
    rejected = Rejected()
    rows = read_file(args.input) if args.input else read_hub()
    kept = collect(rows, args.max_rows, args.sources, rejected)
    if not kept:
        raise DataError("; ".join(["no usable row", *rejected.lines()]))
    parts: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for fields in kept:
        parts["test" if is_test(fields["problem"], args.test_fraction, args.seed) else "train"].append(fields)
    for split, part in parts.items():
        if not part:
            raise DataError(
                f"none of the {len(kept)} problems falls into the {split} split at --test-fraction "
                f"{args.test_fraction}: change it, or read more rows"
            )
    splits = {
        split: [build_row(DATA_SOURCE, split=split, index=i, **fields) for i, fields in enumerate(part)]
        for split, part in parts.items()
    }
    paths = write_splits(args.out, splits)
    print_report(paths, splits, rejected, [])
    print_next(paths)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="OpenMathInstruct-2, as verl parquet.")
    parser.add_argument("--out", type=Path, required=True, help="folder for train.parquet and test.parquet")
    parser.add_argument("--input", type=Path, help="a local .parquet or .jsonl file (default: the hub, streamed)")
    parser.add_argument("--max-rows", type=at_least(2), default=70_000, help="stop after so many distinct problems")
    parser.add_argument("--sources", nargs="+", help="keep these problem_source values only, e.g. math gsm8k")
    parser.add_argument("--test-fraction", type=float, default=0.05, help="share of the problems held out (0.05)")
    parser.add_argument("--seed", type=int, default=42, help="decides which problems are held out (42)")
    return run_cli(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
