"""One run at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from recipe.hdpo.tracking import folder_lock
from recipe.hdpo.tracking.folder_lock import LOCK_FILE, FolderInUse, lock_folder


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder_lock, "held", {})


def test_a_folder_in_use_is_refused_with_the_process_and_the_folder(tmp_path: Path) -> None:
    with (tmp_path / LOCK_FILE).open("w") as other:
        other.write("process 4242 on node7\n")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FolderInUse, match=f"{tmp_path} is in use by process 4242 on node7"):
            lock_folder(tmp_path)
        assert (tmp_path / LOCK_FILE).read_text() == "process 4242 on node7\n"
    lock_folder(tmp_path)


def test_what_a_dead_process_left_behind_does_not_block_and_the_new_owner_stands_in_the_file(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("process 4242 on a machine with a very long name\n")
    lock_folder(tmp_path)
    assert (tmp_path / LOCK_FILE).read_text() == f"process {os.getpid()} on {os.uname().nodename}\n"


def test_a_process_may_take_its_folder_twice_and_under_two_names(tmp_path: Path) -> None:
    lock_folder(tmp_path / "run")
    lock_folder(tmp_path / "x" / ".." / "run")
    os.symlink(tmp_path / "run", tmp_path / "link")
    lock_folder(tmp_path / "link")
    assert list(folder_lock.held) == [str(tmp_path / "run")]


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(file: object, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lock_folder(tmp_path)
    assert "No locks available" in caplog.text and folder_lock.held == {}
