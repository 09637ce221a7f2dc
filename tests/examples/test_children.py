"""Child processes end with the program that started them, and a folder has one program at a time."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import training
from examples.children import child
from examples.training import ROOT
from recipe.hdpo.tracking import folder_lock

# Ends at once on SIGTERM, and has a child of its own that does not.
STUBBORN = "sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & wait"


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt: a program that a shell started in the background would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_child_and_what_it_started(number: int) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)]
    with (
        pytest.raises(KeyboardInterrupt),
        child(["bash", "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process,
    ):
        grandchild = os.pidfd_open(int(process.stdout.readline()))
        os.kill(os.getpid(), number)
        process.wait()
    assert process.returncode == -signal.SIGTERM
    assert _ends(grandchild)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)] == before


def _ends(pidfd: int) -> bool:
    """Wait for the end of a process that was killed, which takes the kernel a moment."""
    return select.select([pidfd], [], [], 60)[0] == [pidfd]


def test_a_child_that_ends_by_itself_keeps_its_exit_code() -> None:
    with child(["bash", "-c", "exit 7"]) as process:
        assert process.wait() == 7


def test_the_kernel_kills_the_child_of_a_program_that_is_killed() -> None:
    code = "from examples.children import child\nwith child(['bash', '-c', 'echo $$; exec sleep 1000']) as p: p.wait()"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        grandchild = os.pidfd_open(int(program.stdout.readline()))
        program.kill()
        assert _ends(grandchild)


def test_a_second_program_in_a_folder_is_refused_before_it_changes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "held", {})
    with (tmp_path / folder_lock.LOCK_FILE).open("w") as other:
        other.write("process 4242 on here\n")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match=rf"\[hdpo\] {tmp_path} is in use by process 4242 on here"):
            training.train_with([], 1, tmp_path, tmp_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder_lock.LOCK_FILE]
