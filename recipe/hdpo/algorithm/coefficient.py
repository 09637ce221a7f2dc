"""How lambda, the weight of the distillation term, changes over a run: expand coverage first, then sharpen.

lambda_t = lambda * f_t     L_t = L_GRPO + lambda_t * L_JSD

constant      f_t = 1
linear        f_t = 1 - (t - 1) / T                      t = 1 .. T, the run's steps
cosine        f_t = (1 + cos(pi (t - 1) / T)) / 2
cliff_rate    f_t = min(1, c_t / c_0)                    c_0 and c_t: see :class:`CliffShare`
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

SCHEDULES = ("constant", "linear", "cosine", "cliff_rate")
# Steps that the first rate is the mean of, and the time constant of the recent one.
STEPS = 10


@dataclass
class CliffShare:
    """The share of prompts that are cliffs now, c_t, beside that at the beginning, c_0.

    Attributes:
        cliffs, prompts: sums over the first :data:`STEPS` steps that had prompts; c_0 = cliffs / prompts.
        steps: how many of those were seen.
        recent: c_t, an exponential mean over about :data:`STEPS` steps which begins at c_0.
    """

    cliffs: int = 0
    prompts: int = 0
    steps: int = 0
    recent: float = 0.0

    def update(self, cliffs: int, prompts: int) -> None:
        """Take in a step's number of cliffs and of prompts; a step without prompts changes nothing."""
        if prompts == 0:
            return
        if self.steps < STEPS:
            self.cliffs, self.prompts, self.steps = self.cliffs + cliffs, self.prompts + prompts, self.steps + 1
            self.recent = self.cliffs / self.prompts
        else:
            self.recent += (cliffs / prompts - self.recent) / STEPS

    @property
    def factor(self) -> float:
        """f_t. 1 while c_0 is being measured, and where there were no cliffs then."""
        first = self.cliffs / self.prompts if self.prompts else 0.0
        return min(1.0, self.recent / first) if first > 0.0 else 1.0

    def state_dict(self) -> dict[str, float]:
        """For the checkpoint."""
        return asdict(self)


def factor(schedule: str, step: int, total_steps: int, share: CliffShare) -> float:
    """f_t, what lambda is multiplied by.

    Args:
        schedule: one of :data:`SCHEDULES`.
        step: t, from 1 on.
        total_steps: T, of the run at hand: one that goes on from a checkpoint with more steps stretches the schedule,
            and lambda rises again. A step behind T has what comes behind the last one, 0.
        share: read for ``cliff_rate``.
    """
    done = min(step - 1, total_steps) / total_steps
    if schedule == "linear":
        return 1.0 - done
    if schedule == "cosine":
        return (1.0 + math.cos(math.pi * done)) / 2.0
    return share.factor if schedule == "cliff_rate" else 1.0
