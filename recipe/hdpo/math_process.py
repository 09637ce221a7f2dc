"""math-verify in processes of its own, with a limit on time and memory.

Parsing a model's output can take any time and memory (9^{9^{9^{9}}}), and signals do not interrupt it in a thread.
Here a worker that takes too long is killed, and the next call gets a fresh one; an allocation over the memory limit
fails, and the answer with it. The pool starts with the first call and is shared by all threads of the process.

This is a module of its own, not a part of reward.py, because verl loads reward files from their path: a worker
process cannot import such a module again, and every load would have its own pool.
"""

import importlib.util
import logging
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from recipe.hdpo.child_process import start_pool

TIME_LIMIT_S = 5.0
# On top of what the worker occupies once math-verify is imported.
MEMORY_LIMIT_BYTES = 2 << 30
MAX_WORKERS = 2
# A worker is replaced after so many comparisons, so that sympy's caches do not grow into the memory limit.
TASKS_PER_WORKER = 500
# To start a worker takes seconds; after so long something is broken and no answer can be scored.
START_LIMIT_S = 120.0

Result = TypeVar("Result")

_pool: ProcessPool | None = None
_pool_owner = -1
_lock = threading.Lock()
# No task waits inside the pool, so `START_LIMIT_S` + the time limit bound every wait for a result.
_slots = threading.BoundedSemaphore(MAX_WORKERS)


class Unscored(Exception):
    """The comparison was given up, so that no grade would mean anything; the message is the reason."""


def is_equal(answer: str, truth: str, *, in_text: bool = False) -> bool:
    """Whether ``answer`` is ``truth``, both texts with LaTeX or plain notation (see answers/compare.py).

    Args:
        in_text: ``answer`` is free text, in which math-verify looks for an answer.

    Raises:
        Unscored: over the time limit, the worker died, or the ground truth can't be read.
        RuntimeError: no worker could be started, or math-verify is not installed: no score would mean anything.
    """
    return call(_compare, answer, truth, in_text, seconds=TIME_LIMIT_S)


def call(function: Callable[..., Result], *args: Any, seconds: float) -> Result:
    """A module's function in one of the processes with limits.

    Args:
        seconds: that the call may take.

    Raises:
        Unscored: over the time limit, or the worker died.
        RuntimeError: no worker could be started, or math-verify is not installed.
        Exception: what the function raises.
    """
    with _slots:
        # The second try is for idle workers that something else has killed.
        for last_try in (False, True):
            pool = _get_pool()
            try:
                return _run(pool, function, args, seconds)
            except (BrokenProcessPool, CancelledError) as error:
                _discard(pool)
                if last_try:
                    raise RuntimeError(
                        "the processes that compare answers cannot be started; their error is above. A script that "
                        'computes rewards needs an `if __name__ == "__main__":` guard'
                    ) from error
    raise AssertionError("unreachable")


def _run(pool: ProcessPool, function: Callable[..., Result], args: tuple[Any, ...], seconds: float) -> Result:
    future = pool.schedule(function, args=args, timeout=seconds)
    try:
        result: Result = future.result(timeout=START_LIMIT_S + seconds)
        return result
    except ProcessExpired as error:
        raise Unscored(f"the checking process died (exit code {error.exitcode})") from None
    except FutureTimeoutError as error:
        if future.done():
            raise Unscored(f"over the time limit of {seconds:.0f} s") from None
        _discard(pool)
        raise RuntimeError(f"the processes that compare answers did not start within {START_LIMIT_S:.0f} s") from error


def stop() -> None:
    """Stop the workers of this process; the next call starts new ones."""
    if _pool is not None:
        _discard(_pool)


def _discard(pool: ProcessPool) -> None:
    """Stop a pool and forget it, unless another thread has done so."""
    global _pool
    with _lock:
        if pool is not _pool:
            return
        _pool = None
    if _pool_owner == os.getpid():
        pool.stop()
        pool.join()


def _get_pool() -> ProcessPool:
    """The running pool of this process; a new one at first, after a crash, and in a forked child."""
    global _pool, _pool_owner
    with _lock:
        if _pool is None or _pool_owner != os.getpid() or not _pool.active:
            if importlib.util.find_spec("math_verify") is None:
                raise RuntimeError("comparing answers needs math-verify: pip install math-verify")
            _pool = start_pool(
                _start_worker, (MEMORY_LIMIT_BYTES,), max_workers=MAX_WORKERS, max_tasks=TASKS_PER_WORKER
            )
            _pool_owner = os.getpid()
        return _pool


def _start_worker(memory_limit: int) -> None:
    """Import math-verify and use it once, which is slow, before the first task's clock starts; then limit memory."""
    # pebble's own handler waits for the interpreter, which a long integer power never returns to.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    for in_text in (False, True):
        _compare(r"\sqrt{12}", r"2\sqrt{3}", in_text)
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory_limit, used + memory_limit))


def _compare(answer: str, truth: str, in_text: bool) -> bool:
    """Runs in the worker, which alone imports math-verify and sympy."""
    from recipe.hdpo.answers.expression import UnreadableTruth, same_in_text, same_marked

    try:
        return same_in_text(answer, truth) if in_text else same_marked(answer, truth)
    except UnreadableTruth as error:
        raise Unscored(str(error)) from None
    except (MemoryError, RecursionError):  # math-verify turns nearly all of them into "no match" itself
        return False
