"""A folder for one run at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from typing import IO

logger = logging.getLogger(__name__)

LOCK_FILE = ".hdpo_lock"
# By folder: the open lock files of this process.
held: dict[str, IO[str]] = {}


class FolderInUse(RuntimeError):
    """Another process works in the folder."""


def lock_folder(folder: str | os.PathLike[str]) -> None:
    """Take a folder until this process ends; the kernel gives it back, however the process ends.

    On a file system without locks nothing is taken, and that is logged.

    Raises:
        FolderInUse: another process has it; names the process and the folder.
    """
    folder = os.path.realpath(folder)
    if folder in held:
        return
    os.makedirs(folder, exist_ok=True)
    file = open(os.path.join(folder, LOCK_FILE), "a+", encoding="utf-8")  # noqa: SIM115 - it stays open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            owner = file.read().strip() or "another process"
        raise FolderInUse(
            f"{folder} is in use by {owner}: two runs in one folder overwrite each other's checkpoints. Wait until it "
            "has ended, stop it, or use another folder"
        ) from None
    except OSError as error:
        logger.warning(f"{folder} cannot be locked ({error}): see to it that no second run uses it")
        file.close()
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    held[folder] = file
