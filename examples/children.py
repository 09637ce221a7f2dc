"""Child processes that never outlive the program that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from recipe.hdpo.child_process import die_with_parent

# A training driver needs some seconds to end Ray.
END_WITHIN = 30.0


@contextlib.contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
    """A running child process, in a process group of its own; with the context it ends, and its children with it.

    While it runs, SIGTERM and SIGHUP to this program raise KeyboardInterrupt, as SIGINT does: so all of them end the
    child. Where this program is killed without a word, the kernel kills the child.

    Args:
        options: of :class:`subprocess.Popen`.
    """
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with subprocess.Popen(command, process_group=0, preexec_fn=die_with_parent, **options) as process:
            try:
                yield process
            finally:
                _end(process)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _end(process: subprocess.Popen) -> None:
    try:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_WITHIN)
    finally:
        # What is left of the group. Ray's own daemons are killed by the kernel with the process that started them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
