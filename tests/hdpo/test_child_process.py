"""Pools of processes that end with the program that started them, and not with a thread of it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import pytest

from recipe.hdpo.child_process import LOOK_EVERY, start_pool

ROOT = Path(__file__).parents[2]
# A check of steps and a comparison of answers that tell their process and go on for ever.
STEPS = """
import asyncio
from recipe.hdpo.algorithm.gate import Signs
from recipe.hdpo.step_process import StepProcess
SIGNS = Signs(False, 0, 0.0, 1.0)
if __name__ == "__main__":
    asyncio.run(StepProcess("tests.hdpo.test_child_process.tells_and_goes_on", 0).added_to(SIGNS, "x"))
"""
ANSWERS = """
from recipe.hdpo import math_process
from tests.hdpo.test_child_process import tells_and_goes_on
if __name__ == "__main__":
    math_process.call(tells_and_goes_on, "x", seconds=600)
"""


def tells_and_goes_on(text: str) -> None:
    os.write(1, f"{os.getpid()}\n".encode())
    # In C and with the interpreter's lock, as a long power in an answer is: no thread of the process gets a turn.
    deque(iter(int, 1), maxlen=0)


@pytest.mark.parametrize("code", [STEPS, ANSWERS], ids=["steps", "answers"])
def test_a_busy_process_ends_with_the_program_that_is_killed(tmp_path: Path, code: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as program:
        busy = os.pidfd_open(int(program.stdout.readline()))
        program.kill()
        assert select.select([busy], [], [], 60)[0] == [busy]


def test_a_pool_outlives_the_thread_that_asked_for_it() -> None:
    pools = []
    thread = threading.Thread(target=lambda: pools.append(start_pool(max_workers=1)))
    thread.start()
    thread.join()
    first = pools[0].schedule(os.getpid).result()
    threading.Event().wait(2 * LOOK_EVERY)
    assert pools[0].schedule(os.getpid).result() == first != os.getpid()
    pools[0].stop()
    pools[0].join()
