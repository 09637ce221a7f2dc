"""``hdpo_kept.jsonl``: the kept trajectories of every step as text, one JSON line each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

KEPT_FILE = "hdpo_kept.jsonl"


def append_kept(folder: str, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add lines, each with its ``step``, to the folder's file."""
    os.makedirs(folder, exist_ok=True)
    with open(Path(folder, KEPT_FILE), "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def forget_kept_after(folder: str, step: int) -> int:
    """Take out what a run wrote after the checkpoint from which it now goes on, and a line that it could not finish;
    these steps are made again. Returns the number of lines that are gone."""
    path = Path(folder, KEPT_FILE)
    if not path.exists():
        return 0
    part, gone = path.with_suffix(f".part-{os.getpid()}"), 0
    with open(path, encoding="utf-8") as old, open(part, "w", encoding="utf-8") as new:
        for line in old:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                new.write(line)
            else:
                gone += 1
    os.replace(part, path)
    return gone
