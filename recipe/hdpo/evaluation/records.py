"""Result folders: ``meta.json`` says how samples were made, ``samples.jsonl`` holds one line per sample.

Reading for a report is strict: nothing may be cut, missing, there twice, or of other problems. Writing is in
:mod:`recipe.hdpo.evaluation.writer`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.hdpo.evaluation.graders import grader_of_digest
from recipe.hdpo.evaluation.problems import ids_sha256

FORMAT = "hdpo-evaluation/1"
GREEDY = -1
META, SAMPLES, SUMMARY = "meta.json", "samples.jsonl", "summary.json"
RESULT_FILES = (META, SAMPLES, SUMMARY)


@dataclass(frozen=True)
class Sample:
    """One response. ``sample`` is 0..n-1, or -1 for the greedy one; ``tokens`` is the response's length; ``unscored``
    says why it could not be graded (its score is 0.0 then), and is empty where it was."""

    problem_id: str
    data_source: str
    difficulty: str
    sample: int
    prompt: list[dict[str, str]]
    response: str
    answer: str | None
    score: float
    tokens: int
    truncated: bool
    unscored: str = ""


@dataclass(frozen=True)
class Meta:
    """Header of a result folder.

    Attributes:
        settings: flat; everything that decides what the samples are. Two writes must agree on all of it.
        problems: number of problems; each has ``settings["n"]`` samples and a greedy one.
        about: for the reader: paths, command line, time, rows left out.
    """

    settings: dict[str, Any]
    problems: int
    about: dict[str, Any]


@dataclass(frozen=True)
class Results:
    """A complete result folder, read."""

    folder: Path
    meta: Meta
    samples: list[Sample]


_TYPES: dict[str, type | tuple[type, ...]] = {
    "problem_id": str,
    "data_source": str,
    "difficulty": str,
    "sample": int,
    "prompt": list,
    "response": str,
    "answer": (str, type(None)),
    "score": (int, float),
    "tokens": int,
    "truncated": bool,
    "unscored": str,
}
# Fields that results from before them lack.
_LATER: dict[str, Any] = {"unscored": ""}
# What readers need; a header without it was not made by evaluate.
_SETTINGS: dict[str, type | tuple[type, ...]] = {
    "n": int,
    "max_tokens": int,
    "success_reward": (int, float),
    "problems_sha256": str,
}


def read_results(folder: Path) -> Results:
    """Read a complete result folder.

    Raises:
        ValueError: not a result folder; empty; a cut or broken line; a sample twice or missing.
    """
    folder = Path(folder)
    meta = read_meta(folder)
    path = folder / SAMPLES
    content = path.read_bytes() if path.exists() else b""
    lines = content.splitlines()
    if not lines:
        raise ValueError(f"{path}: no samples. Run the evaluation that made {folder} again: {_command(meta)}")
    # What evaluate sets aside by itself: a last line without an end.
    cut = None if content.endswith(b"\n") else len(lines)
    samples = [parse_sample(line, path, n, meta, is_cut=n == cut) for n, line in enumerate(lines, 1)]
    keys = {(s.problem_id, s.sample) for s in samples}
    if len(keys) != len(samples):
        raise ValueError(f"{path}: {len(samples) - len(keys)} sample(s) are there twice. Remove the repeated lines.")
    problems = {s.problem_id for s in samples}
    if len(problems) >= meta.problems and ids_sha256(problems) != meta.settings["problems_sha256"]:
        raise ValueError(
            f"{path}: holds samples of other problems than the {meta.problems} that {META} names (another data set's "
            "file?). Put the folder's own file back, or evaluate into a new folder."
        )
    n = meta.settings["n"]
    expected = {(problem, i) for problem in problems for i in range(GREEDY, n)}
    strange, missing = keys - expected, meta.problems * (n + 1) - len(keys & expected)
    if strange:
        raise ValueError(
            f"{path}: {len(strange)} sample(s) do not belong, such as sample {min(strange)[1]} of problem "
            f"{min(strange)[0]}; their numbers go from {GREEDY} to {n - 1}. Put the folder's own file back, or "
            "evaluate into a new folder."
        )
    if missing:
        raise ValueError(
            f"{path}: {missing} of {meta.problems * (n + 1)} samples are missing. Run the evaluation again, it draws "
            f"only what is missing: {_command(meta)}"
        )
    return Results(folder, meta, samples)


def read_meta(folder: Path) -> Meta:
    """The header of a result folder; ValueError if it is not one."""
    path = folder / META
    try:
        content = json.loads(path.read_text())
        if content.pop("format") != FORMAT:
            raise ValueError(f"format is not {FORMAT}")
        meta = Meta(**content)
        if not isinstance(meta.about, dict) or not isinstance(meta.problems, int):
            raise ValueError("about is no object, or problems no number")
        for key, kind in _SETTINGS.items():
            if not isinstance(meta.settings[key], kind):
                raise ValueError(f"settings.{key} is {meta.settings[key]!r}")
        if "grader_sha256" in meta.settings:
            meta.settings["grader"] = grader_of_digest(meta.settings.pop("grader_sha256"))
        return meta
    except OSError as error:
        raise ValueError(
            f"{folder}: not a result folder, {META} is missing. Pass a folder made by evaluate."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error!r}). Evaluate again into a new folder.") from error


def parse_sample(line: bytes, path: Path, number: int, meta: Meta | None = None, is_cut: bool = False) -> Sample:
    """One line of ``samples.jsonl``; ValueError, with what to do, if it is not whole.

    Args:
        meta: the folder's header, for a reader; None in evaluate itself.
        is_cut: the line has no end, so that evaluate sets it aside.
    """
    mend = "Remove that line; its sample is drawn again."
    if meta is not None:
        mend = f"{'Run' if is_cut else 'Remove that line, and run'} the evaluation again: {_command(meta)}"
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: cut off or not JSON ({error}). {mend}") from error
    content = {**_LATER, **content} if isinstance(content, dict) else content
    if not isinstance(content, dict) or set(content) != set(_TYPES):
        raise ValueError(f"{path}, line {number}: the fields are not {', '.join(_TYPES)}. {mend}")
    wrong = [
        name
        for name, kind in _TYPES.items()
        if not isinstance(content[name], kind) or (isinstance(content[name], bool) and kind is not bool)
    ]
    if wrong or not _is_finite(content["score"]):
        raise ValueError(f"{path}, line {number}: bad value of {', '.join(wrong) or 'score'}. {mend}")
    return Sample(**content)


def _is_finite(number: float) -> bool:
    """Also of an integer that no float holds."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _command(meta: Meta) -> str:
    return str(meta.about.get("command", "(command unknown)"))
