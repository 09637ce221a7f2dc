"""Child processes that never outlive the program that started them, killed or not."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pebble import ProcessPool

# Of <linux/prctl.h>.
PR_SET_PDEATHSIG = 1
# How long the thread of a pool that was stopped may stay.
LOOK_EVERY = 1.0
# Loaded here: what runs between fork and exec may wait for no lock of another thread.
_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """In a child: be killed by the kernel once the thread that started it has ended. Linux alone has that."""
    if sys.platform.startswith("linux"):
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_pool(initializer: Callable[..., None] | None = None, initargs: tuple = (), **options: Any) -> ProcessPool:
    """A running pool of spawned processes that end with this one, in the middle of a call too.

    Args:
        initializer, initargs: what each process does first.
        options: of :class:`pebble.ProcessPool`.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(initializer=_begin, initargs=(os.getpid(), initializer, initargs), context=context, **options)
    started: Future[None] = Future()
    # The first processes are children of the thread that starts the pool, and whoever calls here may end before it.
    threading.Thread(target=_hold, args=(pool, started), name="hdpo-pool", daemon=True).start()
    started.result()
    return pool


def _hold(pool: ProcessPool, started: Future[None]) -> None:
    try:
        alive = pool.active  # starts it
    except BaseException as error:
        started.set_exception(error)
        return
    started.set_result(None)
    while alive:
        time.sleep(LOOK_EVERY)
        alive = pool.active


def _begin(parent: int, initializer: Callable[..., None] | None, initargs: tuple) -> None:
    die_with_parent()
    if os.getppid() != parent:  # it was killed before the kernel was asked
        os._exit(1)
    if initializer is not None:
        initializer(*initargs)
