"""A time limit for reward calls that never return."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from recipe.hdpo.rollout.outputs import UnscoredRollout


class RewardLimit:
    """Gives up a reward call that has been waiting while no other one came back either.

    Calls queue up in the reward workers where many rollouts end together. So the clock of a call starts anew whenever
    another call of the same agent-loop worker comes back: a long queue that moves is no failure.

    Args:
        seconds: the limit; 0: none.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.last_return = float("-inf")

    async def __call__(self, call: Coroutine[Any, Any, None]) -> None:
        """Wait for a reward call.

        Raises:
            UnscoredRollout: the limit is over. The call is given up; what runs in the reward worker may run on.
        """
        if self.seconds <= 0:
            return await call
        loop = asyncio.get_running_loop()
        task, began = asyncio.ensure_future(call), loop.time()
        try:
            while True:
                left = max(began, self.last_return) + self.seconds - loop.time()
                done, _ = await asyncio.wait({task}, timeout=max(left, 0.0))
                if done:
                    self.last_return = loop.time()
                    return task.result()
                if max(began, self.last_return) + self.seconds <= loop.time():
                    raise UnscoredRollout(
                        f"the reward function has not returned within {self.seconds:g} s (hdpo.reward_timeout), and no "
                        "other reward call has either. The rollout counts as lost, not as failed"
                    )
        finally:
            task.cancel()
