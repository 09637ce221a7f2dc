"""What each schedule of privileged rollouts costs, from the lengths of rollouts.

A rollout takes its tokens times a constant time per token, as long as the engine is not saturated. A step of GRPO ends
its rollout phase with its longest rollout. With ``same_step`` a cliff's privileged rollouts begin when its last plain
rollout has ended. With ``next_step`` they begin with the next step's prompts. The rest of a step takes the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Step:
    """The rollouts of one step, in tokens.

    Attributes:
        longest: of each prompt's plain rollouts, [P].
        cliff: whether all of a prompt's rollouts failed, [P].
    """

    longest: np.ndarray
    cliff: np.ndarray


def rollout_tokens(steps: Sequence[Step], privileged: Sequence[np.ndarray]) -> np.ndarray:
    """Tokens on the critical path of every step's rollout phase.

    Args:
        steps: one run's.
        privileged: tokens of the longest privileged rollout of every cliff of each step, [cliffs of that step].

    Returns:
        one row a step; columns: GRPO, same_step, next_step.
    """
    found, before = [], np.zeros(0)
    for step, shown in zip(steps, privileged, strict=True):
        plain = step.longest.max()
        same = max(plain, (step.longest[step.cliff] + shown).max(initial=0))
        found.append((plain, same, max(plain, before.max(initial=0))))
        before = shown
    return np.array(found, dtype=float)


def ratios(steps: Sequence[Step], privileged: Sequence[np.ndarray], ms: float, rest: float) -> tuple[float, float]:
    """Mean step time over GRPO's, of same_step and of next_step.

    Args:
        ms: milliseconds per token.
        rest: seconds of a step that are no rollout.
    """
    grpo, same, following = rollout_tokens(steps, privileged).mean(0) * ms / 1000 + rest
    return same / grpo, following / grpo
