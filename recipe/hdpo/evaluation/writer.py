"""Adds samples to a result folder (its form: :mod:`recipe.hdpo.evaluation.records`).

A folder belongs to one set of settings. Writing again with the same settings adds the samples that are
missing; writing with others is refused. A last line that was cut off (a killed run) is moved to
``samples.jsonl.cut-<i>`` and its sample is drawn again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recipe.hdpo.evaluation.records import FORMAT, META, SAMPLES, Meta, Sample, parse_sample, read_meta


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
        samples = [parse_sample(line, self.folder / SAMPLES, i) for i, line in enumerate(lines, 1)]
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
            _check_same_settings(read_meta(self.folder).settings, meta.settings, self.folder)
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
