"""Watches two rates that may fall for good: the teacher's with privileged prompts, and the student's without.

The teacher of HDPO is the model itself. Updates that break its reading of privileged prompts take away the very
rollouts that it learns from: the solve rate falls, fewer and worse trajectories are kept, and training goes on as GRPO
with noise. This shows nowhere else, so it is a metric and a log line of its own.

The student may fall while the teacher rises: where rollouts that reach a shown answer over false steps are kept, both
learn to write them, and ever more prompts are cliffs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

logger = logging.getLogger(__name__)

# Weight of the past in each step's recent rate: about the last ten steps that had privileged rollouts.
DECAY = 0.9
# A best value is believed after this many such steps: before, the recent rate rests on too few rollouts.
MIN_STEPS = 10
# The fall must also exceed this many standard errors. The best is the highest of many noisy values, so that at a low
# solve rate the fraction alone would warn in every run; with 4, a constant rate warns in less than 1 run of 10.
STANDARD_ERRORS = 4.0


@dataclass(frozen=True)
class Watched:
    """A rate that is watched: the names of its two metrics, and what is logged when it falls, with its value as
    ``{rate}`` and its best as ``{best}``."""

    rate: str
    flag: str
    said: str


TEACHER = Watched(
    "hdpo/privileged_solve_rate_recent",
    "hdpo/teacher_collapse",
    "the privileged solve rate fell to {rate:.2f}, from {best:.2f} at best: the teacher is losing its use of "
    "privileged prompts, and with it what HDPO learns from; or, if hdpo/cliff_rate fell as well, only harder cliffs "
    "are left. See docs/reliability.md, 'When the teacher collapses'",
)
STUDENT = Watched(
    "hdpo/solved_groups_recent",
    "hdpo/student_collapse",
    "the share of prompts with a correct rollout fell to {rate:.2f}, from {best:.2f} at best: the student is losing "
    "what it could do, or the prompts have become harder. Read what is kept (trainer.rollout_data_dir), and compare "
    "hdpo/kept_valid_steps with hdpo/plain_valid_steps. See docs/reliability.md, 'When the student collapses'",
)


@dataclass
class CollapseMonitor:
    """A recent rate against its best value so far: by default privileged rollouts that are correct, of all; else groups
    with a correct rollout, of all. Saved with every checkpoint.

    Attributes:
        threshold: fraction of the best rate below which it counts as collapsed; 0 never warns.
        of: which rate this is.
        steps: steps with such rollouts, or groups, so far.
        solved, rollouts: exponentially weighted counts of those with R = 1, and of all.
        best, best_rollouts: highest recent rate so far, and the weighted count that it rests on.
        collapsed: whether the last step was below the threshold, and that by more than chance.
    """

    threshold: float
    of: Watched = TEACHER
    steps: int = 0
    solved: float = 0.0
    rollouts: float = 0.0
    best: float = 0.0
    best_rollouts: float = 1.0
    collapsed: bool = False

    def update(self, solved: int, rollouts: int) -> dict[str, float]:
        """Take in one step's counts and return its metrics; none while there was nothing to count yet.

        Logs a warning when the recent rate falls below ``threshold * best`` by more than chance, and again after each
        recovery.
        """
        if rollouts:
            self.steps += 1
            self.solved = DECAY * self.solved + solved
            self.rollouts = DECAY * self.rollouts + rollouts
        if not self.rollouts:
            return {}
        rate = self.solved / self.rollouts
        if self.steps >= MIN_STEPS and rate >= self.best:
            self.best, self.best_rollouts = rate, self.rollouts
        # Old rollouts weigh less, so the weighted count understates their number, and this overstates the error.
        error = math.sqrt(self.best * (1 - self.best) / self.best_rollouts + rate * (1 - rate) / self.rollouts)
        fall = self.best - rate
        before = self.collapsed
        self.collapsed = rate < self.threshold * self.best and fall > STANDARD_ERRORS * error
        if self.collapsed and not before:
            logger.warning(self.of.said.format(rate=rate, best=self.best))
        return {self.of.rate: rate, self.of.flag: float(self.collapsed)}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state, without the threshold and what is watched."""
        return {name: value for name, value in asdict(self).items() if name not in ("threshold", "of")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`.

        Raises:
            TypeError: the fields are not those of :meth:`state_dict`, or one is no number.
        """
        own = self.state_dict()
        if set(state) != set(own) or not all(isinstance(value, int | float) for value in state.values()):
            raise TypeError(f"the fields are not the numbers {', '.join(own)}")
        for name, value in state.items():
            setattr(self, name, value)
