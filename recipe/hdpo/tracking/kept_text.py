"""The kept trajectories as text: ``hdpo_kept/STEP.jsonl``, one JSON line each, beside verl's own ``STEP.jsonl``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

KEPT_FOLDER = "hdpo_kept"


def write_kept(folder: str, step: int, lines: Iterable[Mapping[str, Any]]) -> Path:
    """Write one step's file, whole or not at all. A step that is made again after a resume replaces its file.

    Returns:
        the file.
    """
    path = Path(folder, KEPT_FOLDER, f"{step}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".part-{os.getpid()}")
    with open(part, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"step": step, **line}, ensure_ascii=False) + "\n" for line in lines)
    os.replace(part, path)
    return path


def kept_files(folder: str | Path) -> list[Path]:
    """The files of a run's ``trainer.rollout_data_dir``, in order of steps."""
    return sorted(Path(folder, KEPT_FOLDER).glob("*.jsonl"), key=lambda path: int(path.stem))
