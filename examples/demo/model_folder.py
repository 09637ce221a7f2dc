"""A model folder that is either complete or absent, and that remembers how it was made.

Both makers of demo models write through here: the folder is filled under a temporary name and renamed when it
is complete, so an interrupted run leaves nothing behind, and a second run with the same settings has nothing to do.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECORD = "made_by.json"


class FolderError(ValueError):
    """The output folder holds something else; the message says how to go on."""


def is_made(out: Path, settings: dict[str, Any]) -> bool:
    """True when ``out`` holds the model of these settings, False when there is nothing yet.

    Raises FolderError when ``out`` holds anything else, which is never overwritten.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        made = json.loads((out / RECORD).read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FolderError(f"{out} exists and was not made by this script: choose another --out or remove it") from None
    if made != settings:
        differ = sorted(key for key in made.keys() | settings.keys() if made.get(key) != settings.get(key))
        raise FolderError(
            f"{out} was made with other settings ({', '.join(differ)}): choose another --out or remove it"
        )
    return True


def publish(out: Path, settings: dict[str, Any], results: Any, save: Callable[[Path], None]) -> None:
    """Let ``save`` fill a temporary folder beside ``out``, add the record, and rename it to ``out``."""
    temporary = out.parent / f".{out.name}.{os.getpid()}.tmp"
    try:
        temporary.mkdir(parents=True)
        save(temporary)
        (temporary / RECORD).write_text(json.dumps({"settings": settings, "results": results}, indent=2) + "\n")
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
