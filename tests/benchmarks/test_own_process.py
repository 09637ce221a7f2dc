"""A process of its own: what it sends comes at once, its failure is an error, and it does not outlive its parent."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from benchmarks.gpu.own_process import from_own_process

ROOT = Path(__file__).parents[2]
SENDS_AND_STAYS = """
import os, sys, time
from benchmarks.gpu.own_process import from_own_process

def stay(sender):
    sender.send(os.getpid())
    time.sleep(300)

if __name__ == "__main__":
    for sent in from_own_process(stay):
        print(sent != os.getpid(), flush=True)
"""


def test_what_is_sent_comes_and_a_failure_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(from_own_process(Connection.send, ("a", {"seconds": 1.5}))) == [("a", {"seconds": 1.5})]
    with pytest.raises(RuntimeError, match="process of send ended with exit code 1"):
        list(from_own_process(Connection.send))
    assert "missing 1 required positional argument: 'obj'" in capfd.readouterr().err


def test_it_sends_before_it_ends_and_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "stays.py"
    script.write_text(SENDS_AND_STAYS)
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert parent.stdout is not None and parent.stdout.readline() == "True\n"
    parent.kill()
    # The process that it started holds the same pipe: it ends only with the last of the two.
    assert parent.communicate(timeout=120) == ("", None)
