"""Cliffs: prompts on which every rollout fails.

    x is a cliff  <=>  all K rollouts of x were scored and R(x, y_i) < success_reward for every i.

A group in which a rollout was lost (an error in the agent loop) is not a cliff: nobody knows its reward.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class RolloutGroup:
    """The K rollouts of one prompt while they settle.

    Example:
        ``RolloutGroup(uid="8f2c", size=16, rewards={0: 0.0, 3: 1.0}, student_prompt_ids=[5, 9], settled=2)``

    Attributes:
        uid: the prompt's id in this step.
        size: K, how many rollouts the prompt has.
        rewards: reward by session id of every rollout that has been scored.
        student_prompt_ids: token ids of the plain prompt, as the rollouts saw it.
        settled: how many rollouts have ended, with a reward or with an error.
        settled_at: wall-clock time in seconds at which the last one ended.
    """

    uid: str
    size: int
    rewards: dict[int, float] = field(default_factory=dict)
    student_prompt_ids: list[int] = field(default_factory=list)
    settled: int = 0
    settled_at: float = 0.0

    def settle(self, now: float) -> bool:
        """Count one ended rollout; True for the last one of the group."""
        self.settled += 1
        self.settled_at = max(self.settled_at, now)
        return self.settled == self.size

    def is_cliff(self, success_reward: float) -> bool:
        """Whether every rollout has a reward and none reaches ``success_reward``."""
        return len(self.rewards) == self.size and not self.is_solved(success_reward)

    def is_solved(self, success_reward: float) -> bool:
        """Whether at least one rollout reaches ``success_reward``."""
        return any(is_success(reward, success_reward) for reward in self.rewards.values())


@dataclass
class GroupRecord:
    """What happened to one prompt in one step; the rollout worker writes it, the trainer reads it.

    Example:
        ``GroupRecord("8f2c", cliff=True, solved=False, rollouts=1, solved_privileged=1, kept=1, kept_tokens=212)``

    Attributes:
        prompt_id: the problem's id over epochs and restarts; see
            :func:`~recipe.hdpo.algorithm.privileged_prompt.prompt_id`.
        cliff: whether all K rollouts failed; solved: whether one succeeded.
        lost_rollouts: normal rollouts that ended with an error.
        rollouts: privileged rollouts that were scored.
        solved_privileged: privileged rollouts with R = 1.
        kept, kept_tokens: privileged rollouts that are used (those with R = 1, or all), and their response tokens.
        too_long, no_solution, errors: privileged rollouts that were skipped or lost, by reason.
        settled_at, ended_at: wall-clock seconds at which the normal rollouts, and then the group, were done.
    """

    prompt_id: str
    cliff: bool
    solved: bool
    lost_rollouts: int = 0
    rollouts: int = 0
    solved_privileged: int = 0
    kept: int = 0
    kept_tokens: int = 0
    too_long: int = 0
    no_solution: int = 0
    errors: int = 0
    settled_at: float = 0.0
    ended_at: float = 0.0


def is_success(reward: float, success_reward: float) -> bool:
    """R = 1: whether a reward counts as a correct answer. NaN never does.

    Compared in float32, in which verl carries rewards: a reward of 0.9 reaches 0.9 before and after that journey.
    """
    return bool(np.float32(reward) >= np.float32(success_reward))
