"""The kept trajectories as text: ``hdpo_kept/STEP.jsonl``, one JSON line each, beside verl's own ``STEP.jsonl``."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

KEPT_FOLDER = "hdpo_kept"
# Of an agent's line: the response in pieces, each with whether it is distilled.
PIECES = "hdpo_response_pieces"


def kept_line(decode: Callable[[Any], str], texts: Mapping[str, Any], response_mask: Any) -> dict[str, Any]:
    """One kept trajectory as text; where a tool or an environment wrote some of the response, that in pieces too.

    Example:
        ``{..., "hdpo_response_pieces": [{"distilled": true, "text": "add(2, 3)"}, {"distilled": false, "text": "5"}]}``

    Args:
        decode: token ids to text.
        texts: token ids by name, 1-D tensors, the response last.
        response_mask: of the response's tokens, 1 for those that are distilled, a 1-D tensor.
    """
    line: dict[str, Any] = {name: decode(ids) for name, ids in texts.items()}
    if not response_mask.all():
        response, pieces, begin = list(texts.values())[-1], [], 0
        for is_own, run in itertools.groupby(response_mask.tolist()):
            end = begin + len(list(run))
            pieces.append({"distilled": bool(is_own), "text": decode(response[begin:end])})
            begin = end
        line[PIECES] = pieces
    return line


def write_kept(folder: str, step: int, lines: Iterable[Mapping[str, Any]]) -> Path:
    """Write one step's file of kept trajectories (:func:`write_step`), where any was kept; else the file of an attempt
    at this step that a resume has discarded goes."""
    lines = list(lines)
    if lines:
        return write_step(folder, KEPT_FOLDER, step, lines)
    path = Path(folder, KEPT_FOLDER, f"{step}.jsonl")
    path.unlink(missing_ok=True)
    return path


def write_step(folder: str, kind: str, step: int, lines: Iterable[Mapping[str, Any]]) -> Path:
    """Write one step's file, whole or not at all. A step that is made again after a resume replaces its file.

    Args:
        folder: a run's ``trainer.rollout_data_dir``.
        kind: the folder in it.

    Returns:
        the file.
    """
    path = Path(folder, kind, f"{step}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".part-{os.getpid()}")
    with open(part, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"step": step, **line}, ensure_ascii=False) + "\n" for line in lines)
    os.replace(part, path)
    return path


def kept_files(folder: str | Path) -> list[Path]:
    """The files of a run's ``trainer.rollout_data_dir``, in order of steps."""
    return sorted(Path(folder, KEPT_FOLDER).glob("*.jsonl"), key=lambda path: int(path.stem))
