"""Result folders: ``meta.json`` says how samples were made, ``samples.jsonl`` holds one line per sample.

A folder belongs to one set of settings. Writing again with the same settings adds the samples that are
missing; writing with others is refused. A last line that was cut off (a killed run) is moved to
``samples.jsonl.cut-<i>`` and its sample is drawn again. Reading for a report is strict: nothing may be cut,
missing or there twice.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT = "hdpo-evaluation/1"
GREEDY = -1
META, SAMPLES = "meta.json", "samples.jsonl"


@dataclass(frozen=True)
class Sample:
    """One response. ``sample`` is 0..n-1, or -1 for the greedy one; ``tokens`` is the response's length."""

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
}


class ResultWriter:
    """Adds samples to a result folder; a context manager.

    Attributes:
        done: (problem id, sample number) of every sample already there.
        cut_file: where a cut last line was put, or None.
    """

    def __init__(self, folder: Path, meta: Meta):
        """Create the folder or go on with it.

        Raises:
            ValueError: the folder holds results of other settings or other files, is in use, or has a broken
                line.
        """
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"--out {folder} is a file. Pass a folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim(meta)
        self._file = open(self.folder / SAMPLES, "a+b")  # noqa: SIM115 (closed by __exit__)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ValueError(
                f"{self.folder}: another evaluation is writing there. Wait for it, or pass another --out."
            ) from error
        self.cut_file = self._set_cut_line_aside()
        lines = (self.folder / SAMPLES).read_bytes().splitlines()
        samples = [_parse(line, self.folder / SAMPLES, i) for i, line in enumerate(lines, 1)]
        self.done = {(s.problem_id, s.sample) for s in samples}

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, samples: Iterable[Sample]) -> None:
        """Append samples and flush them to disk."""
        text = "".join(json.dumps(asdict(s), ensure_ascii=False, allow_nan=False) + "\n" for s in samples)
        self._file.write(text.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _claim(self, meta: Meta) -> None:
        path = self.folder / META
        if path.exists():
            _check_same_settings(_read_meta(self.folder).settings, meta.settings, self.folder)
            return
        strangers = sorted(p.name for p in self.folder.iterdir() if not p.name.startswith("."))
        if strangers:
            raise ValueError(
                f"--out {self.folder} is not a result folder ({META} is missing) and not empty "
                f"({', '.join(strangers[:5])}). Pass a new folder."
            )
        part = self.folder / f".{META}.{os.getpid()}"
        part.write_text(json.dumps({"format": FORMAT, **asdict(meta)}, indent=2, ensure_ascii=False) + "\n")
        os.replace(part, path)

    def _set_cut_line_aside(self) -> Path | None:
        path = self.folder / SAMPLES
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole == len(data):
            return None
        aside = next(p for i in range(10**6) if not (p := path.with_name(f"{SAMPLES}.cut-{i}")).exists())
        aside.write_bytes(data[whole:])
        os.truncate(path, whole)
        return aside


def read_results(folder: Path) -> Results:
    """Read a complete result folder.

    Raises:
        ValueError: not a result folder; empty; a cut or broken line; a sample twice or missing.
    """
    folder = Path(folder)
    meta = _read_meta(folder)
    path = folder / SAMPLES
    lines = path.read_bytes().splitlines() if path.exists() else []
    if not lines:
        raise ValueError(f"{path}: no samples. Run the evaluation that made {folder} again: {_command(meta)}")
    samples = [_parse(line, path, number, meta) for number, line in enumerate(lines, 1)]
    keys = {(s.problem_id, s.sample) for s in samples}
    if len(keys) != len(samples):
        raise ValueError(f"{path}: {len(samples) - len(keys)} sample(s) are there twice. Remove the repeated lines.")
    problems = {s.problem_id for s in samples}
    n = meta.settings["n"]
    expected = {(problem, i) for problem in problems for i in range(GREEDY, n)}
    strange, missing = keys - expected, meta.problems * (n + 1) - len(keys & expected)
    if strange or missing:
        raise ValueError(
            f"{path}: {missing} of {meta.problems * (n + 1)} samples are missing and {len(strange)} do not "
            "belong. "
            f"Run the evaluation again, it draws only what is missing: {_command(meta)}"
        )
    return Results(folder, meta, samples)


def _read_meta(folder: Path) -> Meta:
    path = folder / META
    try:
        content = json.loads(path.read_text())
        if content.pop("format") != FORMAT:
            raise ValueError(f"format is not {FORMAT}")
        return Meta(**content)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder}: not a result folder, {META} is missing. Pass a folder made by evaluate."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). Evaluate again into a new folder.") from error


def _parse(line: bytes, path: Path, number: int, meta: Meta | None = None) -> Sample:
    mend = f"Run the evaluation again: {_command(meta)}" if meta else "Remove that line; its sample is drawn again."
    try:
        content = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: cut off or not JSON ({error}). {mend}") from error
    if not isinstance(content, dict) or set(content) != set(_TYPES):
        raise ValueError(f"{path}, line {number}: the fields are not {', '.join(_TYPES)}. {mend}")
    wrong = [
        name
        for name, kind in _TYPES.items()
        if not isinstance(content[name], kind) or (isinstance(content[name], bool) and kind is not bool)
    ]
    if wrong or not math.isfinite(content["score"]):
        raise ValueError(f"{path}, line {number}: bad value of {', '.join(wrong) or 'score'}. {mend}")
    return Sample(**content)


def _check_same_settings(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    changed = [
        f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for key in sorted(set(old) | set(new))
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise ValueError(
            f"--out {folder} holds results of other settings ({'; '.join(changed)}). Nothing was changed. "
            "Pass another --out, or the settings of the results that are there."
        )


def _command(meta: Meta) -> str:
    return str(meta.about.get("command", "(command unknown)"))
