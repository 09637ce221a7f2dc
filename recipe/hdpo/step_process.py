"""Calls the user's check of steps in a process of its own, which is killed where it takes too long."""

from __future__ import annotations

import asyncio
import functools
import logging
from dataclasses import replace

from pebble import ProcessPool

from recipe.hdpo.algorithm.gate import CHECKED, FAILED, Signs
from recipe.hdpo.child_process import start_pool
from recipe.hdpo.step_check import StepCheck, load_step_check, share_of

logger = logging.getLogger(__name__)

# Of a check that fails on every response, so many tracebacks are logged.
LOGGED_ERRORS = 3


class StepProcess:
    """One worker's check of steps. The process starts with the first call; after one that was killed, a fresh one.

    Args:
        spec: names the function, as :func:`~recipe.hdpo.step_check.load_step_check` reads it.
        seconds: that a call may take, from its begin; 0: no limit.
    """

    def __init__(self, spec: str, seconds: float) -> None:
        self.spec, self.seconds, self.errors = spec, seconds, 0
        self.pool: ProcessPool | None = None

    async def added_to(self, signs: Signs, text: str) -> Signs:
        """Signs with what the check says of a response. An error in it is logged, and the check counts as failed."""
        try:
            share = await asyncio.wrap_future(
                self._running().schedule(checked_share, args=(self.spec, text), timeout=self.seconds or None)
            )
        except Exception as error:
            self.errors += 1
            if self.errors <= LOGGED_ERRORS:
                last = ", and further failures are counted in hdpo/step_check_errors alone"
                logger.warning(
                    f"hdpo.privileged.step_check={self.spec} failed on a response of {len(text)} characters"
                    f"{last if self.errors == LOGGED_ERRORS else ''}: {type(error).__name__}: {error}",
                    exc_info=error,
                )
            return replace(signs, step_check=FAILED)
        return replace(signs, steps=share, step_check=CHECKED)

    def _running(self) -> ProcessPool:
        if self.pool is None or not self.pool.active:
            self.pool = start_pool(max_workers=1)
        return self.pool

    def stop(self) -> None:
        """End the process."""
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()
            self.pool = None


def checked_share(spec: str, text: str) -> float | None:
    """In the process: the share of valid steps of a text."""
    return share_of(_loaded(spec), text)


@functools.cache
def _loaded(spec: str) -> StepCheck:
    return load_step_check(spec)
