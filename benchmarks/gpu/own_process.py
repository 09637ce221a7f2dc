"""A function in a process of its own, so that what it holds of the card's memory ends with it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any


def from_own_process(function: Callable[..., object], *args: Any) -> Iterator[Any]:
    """What ``function(sender, *args)`` sends in a new process, as it comes.

    The process ends when its parent does, also when that is killed.

    Raises:
        RuntimeError: the process failed. Its own error stands on stderr.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(function, sender, args), daemon=True)
    process.start()
    sender.close()  # or the end of the other process would not be seen
    with receiver:
        try:
            while True:
                yield receiver.recv()
        except EOFError:
            process.join()
    if process.exitcode != 0:
        name = getattr(function, "__name__", function)
        raise RuntimeError(f"the process of {name} ended with exit code {process.exitcode}")


def _run(function: Callable[..., object], sender: Connection, args: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    function(sender, *args)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
