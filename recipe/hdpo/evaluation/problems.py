"""Problems to evaluate: rows of verl parquet files, checked as they are read, each with a stable id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = ("data_source", "prompt", "reward_model")


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        id: :func:`problem_id` of the row.
        data_source: verl's ``data_source``.
        difficulty: ``extra_info.difficulty``, or ``unspecified``.
        prompt: chat messages, ``{"role", "content"}`` each.
        ground_truth: ``reward_model.ground_truth``.
        extra_info: the row's ``extra_info``, handed to the reward function.
        row: the whole row, from which a privileged prompt takes its text.
    """

    id: str
    data_source: str
    difficulty: str
    prompt: list[dict[str, str]]
    ground_truth: Any
    extra_info: dict[str, Any]
    row: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass
class ProblemSet:
    """The problems of some files, in file order.

    Attributes:
        problems: without repetitions.
        duplicates: ``file:row`` of every row that repeats an earlier one; it is evaluated once.
    """

    problems: list[Problem]
    duplicates: list[str] = field(default_factory=list)

    def sha256(self) -> str:
        """Digest of the set of problem ids."""
        return ids_sha256(problem.id for problem in self.problems)


def ids_sha256(ids: Iterable[str]) -> str:
    """Digest of a set of problem ids."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def problem_id(data_source: str, prompt: Sequence[dict[str, str]], ground_truth: Any) -> str:
    """First 16 hex digits of SHA-256 over data source, messages and ground truth as JSON.

    It depends on nothing else: not on the file, the row's place, or ``extra_info``.
    """
    messages = [[message["role"], message["content"]] for message in prompt]
    text = json.dumps([data_source, messages, ground_truth], ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_problems(files: Sequence[Path], limit: int | None = None) -> ProblemSet:
    """Read and check every row of the files.

    Args:
        files: parquet files with the columns ``data_source``, ``prompt``, ``reward_model`` and, if the reward
            function or the summary by difficulty needs it, ``extra_info``.
        limit: keep this many problems, drawn at random by a fixed seed and left in file order (files are
            often sorted by difficulty, so the first ones would not be representative).

    Raises:
        ValueError: a file that cannot be read, is empty or lacks a column; rows without a usable prompt or
            ground truth, all of them counted and the first ones named.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"--limit {limit}: must be at least 1; leave it out to evaluate every problem.")
    found = ProblemSet([])
    seen: set[str] = set()
    for file in files:
        for row_number, problem in enumerate(_read_file(Path(file))):
            if problem.id in seen:
                found.duplicates.append(f"{Path(file).name}:{row_number}")
                continue
            seen.add(problem.id)
            found.problems.append(problem)
    if limit is not None and limit < len(found.problems):
        keep = np.sort(np.random.default_rng(0).choice(len(found.problems), limit, replace=False))
        found.problems = [found.problems[i] for i in keep]
    return found


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(file, "rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _read_file(file: Path) -> list[Problem]:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise ValueError(f"{file}: cannot be read as parquet ({error}). Pass a parquet file with --data.") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise ValueError(
            f"{file}: missing column(s) {', '.join(missing)}; found "
            f"{', '.join(table.column_names) or 'none'}. "
            "`python -m recipe.hdpo.data` writes such files."
        )
    if table.num_rows == 0:
        raise ValueError(f"{file}: holds no rows. Pass a file with at least one problem.")
    problems, bad = [], []
    for number, row in enumerate(table.to_pylist()):
        try:
            problems.append(_problem(row))
        except ValueError as error:
            bad.append(f"row {number}: {error}")
    if bad:
        raise ValueError(
            f"{file}: {len(bad)} of {table.num_rows} rows cannot be evaluated ({'; '.join(bad[:5])}). "
            "Mend or remove these rows."
        )
    return problems


def _problem(row: dict[str, Any]) -> Problem:
    prompt = row["prompt"]
    if not isinstance(prompt, list) or not prompt:
        raise ValueError("prompt is not a non-empty list of chat messages")
    for message in prompt:
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise ValueError("a prompt message lacks a text role or content")
    if not isinstance(row["data_source"], str) or not row["data_source"]:
        raise ValueError("data_source is empty")
    reward_model, extra_info = row["reward_model"] or {}, row.get("extra_info") or {}
    for name, value in (("reward_model", reward_model), ("extra_info", extra_info)):
        if not isinstance(value, dict):
            shown = " (JSON text? write it as a struct)" if isinstance(value, str) else ""
            raise ValueError(f"{name} is {type(value).__name__}, not a struct of named fields{shown}")
    ground_truth = reward_model.get("ground_truth")
    if ground_truth is None or ground_truth == "":
        raise ValueError("reward_model.ground_truth is empty")
    messages = [{"role": m["role"], "content": m["content"]} for m in prompt]
    difficulty = extra_info.get("difficulty")
    return Problem(
        id=problem_id(row["data_source"], messages, ground_truth),
        data_source=row["data_source"],
        difficulty="unspecified" if difficulty in (None, "") else str(difficulty),
        prompt=messages,
        ground_truth=ground_truth,
        extra_info=extra_info,
        row=row,
    )
