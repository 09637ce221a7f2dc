"""Programs of half a minute each that run beside the tests, one after the other, on a second core.

Tests change the environment and replace functions while these run, so that the programs are given the environment of
the start, and nothing that they call is looked up later.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.benchmarks import card_on_cpu
from tests.hdpo import fresh_interpreter

# By the name of the fixture that hands on what they found. Each is given an empty folder and the environment.
PROGRAMS: dict[str, Callable[[Path, dict[str, str]], Any]] = {
    "with_plugin": fresh_interpreter.with_plugin,
    "without_plugin": fresh_interpreter.without_plugin,
    "card_figures": card_on_cpu.figures,
}
_started: dict[str, Future] = {}


def start(names: set[str]) -> None:
    """Start those of the programs that are named."""
    one_at_a_time = ThreadPoolExecutor(max_workers=1)
    for name in PROGRAMS:
        if name in names:
            _started[name] = one_at_a_time.submit(_run, name, dict(os.environ))


def result(name: str) -> Any:
    """What a program found, once it has ended."""
    return _started[name].result()


def _run(name: str, env: dict[str, str]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return PROGRAMS[name](Path(folder), env)
