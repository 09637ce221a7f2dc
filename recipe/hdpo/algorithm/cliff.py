"""Cliffs: prompts on which every rollout fails.

    x is a cliff  <=>  all K rollouts of x saw x whole and were scored, and R(x, y_i) < success_reward for every i.

A group in which a rollout was lost (an error in the agent loop, or a reward that is no finite number) is not a cliff:
nobody knows whether it failed. Nor is a prompt of which the rollouts saw only a part: nobody can solve that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recipe.hdpo.algorithm.feedback import Attempt

# In the extra information of a reward: why there is none, as text; empty where there is one.
UNSCORED = "hdpo_unscored"

# What is counted of each source in a record.
SOURCE_COUNTS = ("rollouts", "solved", "kept")

# Of the text of an error in a record, which travels through TransferQueue.
ERROR_CHARS = 500


def error_text(error: BaseException) -> str:
    """An error for people, short enough to travel."""
    # Ray wraps the error of another process, and puts that process's whole traceback into the text.
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {cause}"[:ERROR_CHARS]


@dataclass
class RolloutGroup:
    """The K rollouts of one prompt while they settle.

    Example:
        ``RolloutGroup(uid="8f2c", size=16, rewards={0: 0.0, 3: 1.0}, student_prompt_ids=[5, 9], settled=2)``

    Attributes:
        uid: the prompt's id in this step.
        size: K, how many rollouts the prompt has.
        rewards: reward by session id of every rollout that has been scored.
        agent_name: verl's name of the agent loop that makes the rollouts.
        student_prompt_ids: token ids of the plain prompt, as the rollouts saw it.
        prompt_was_cut: whether that is only a part of the prompt.
        truncated: how many scored rollouts were stopped by the length limit.
        unscored: how many of the lost rollouts ended, but without a reward that is a finite number.
        first_error, first_error_at: text of the first error that cost a rollout, and its wall-clock time in seconds.
        plain_signs: of the correct rollouts that came to their end, as in :class:`GroupRecord`.
        attempts: by session id the scored rollouts with feedback, where privileged prompts show that.
        settled: how many rollouts have ended, with a reward or with an error.
        settled_at: wall-clock time in seconds at which the last one ended.
    """

    uid: str
    size: int
    agent_name: str = "single_turn_agent"
    rewards: dict[int, float] = field(default_factory=dict)
    student_prompt_ids: list[int] = field(default_factory=list)
    settled: int = 0
    settled_at: float = 0.0
    prompt_was_cut: bool = False
    truncated: int = 0
    unscored: int = 0
    first_error: str = ""
    first_error_at: float = 0.0
    plain_signs: list[dict[str, Any]] = field(default_factory=list)
    attempts: dict[int, Attempt] = field(default_factory=dict)

    def settle(self, now: float) -> bool:
        """Count one ended rollout; True for the last one of the group."""
        self.settled += 1
        self.settled_at = max(self.settled_at, now)
        return self.settled == self.size

    def lose(self, error: BaseException, now: float, *, unscored: bool) -> None:
        """Take in the error that cost a rollout; the first one is kept as text."""
        self.unscored += unscored
        if not self.first_error:
            self.first_error, self.first_error_at = error_text(error), now

    def is_cliff(self, success_reward: float) -> bool:
        """Whether the prompt was seen whole, every rollout has a finite reward and none reaches ``success_reward``."""
        scored = [reward for reward in self.rewards.values() if math.isfinite(reward)]
        return len(scored) == self.size and not self.prompt_was_cut and not self.is_solved(success_reward)

    def is_solved(self, success_reward: float) -> bool:
        """Whether at least one rollout reaches ``success_reward``."""
        return any(is_success(reward, success_reward) for reward in self.rewards.values())

    def record(self, prompt_id: str, success_reward: float) -> GroupRecord:
        """What the normal rollouts of the settled group came to."""
        return GroupRecord(
            prompt_id=prompt_id,
            cliff=self.is_cliff(success_reward),
            # What is true of a part of a prompt says nothing of the prompt.
            solved=self.is_solved(success_reward) and not self.prompt_was_cut,
            lost_rollouts=self.size - len(self.rewards),
            size=self.size,
            unscored=self.unscored,
            truncated=self.truncated,
            overlong=self.prompt_was_cut,
            first_error=self.first_error,
            first_error_at=self.first_error_at,
            plain_signs=self.plain_signs,
            uid=self.uid,
            successes=sum(is_success(reward, success_reward) for reward in self.rewards.values()),
        )


@dataclass
class GroupRecord:
    """What happened to one prompt in one step; the rollout worker writes it, the trainer reads it.

    Example:
        ``GroupRecord("8f2c", cliff=True, solved=False, rollouts=1, solved_privileged=1, kept=1, kept_tokens=212)``

    Attributes:
        prompt_id: the problem's id over epochs and restarts; see
            :func:`~recipe.hdpo.algorithm.privileged_prompt.prompt_id`.
        cliff: whether all K rollouts failed; solved: whether one succeeded.
        lost_rollouts: normal rollouts that ended with an error, or without a usable reward.
        rollouts: privileged rollouts that were scored.
        solved_privileged: privileged rollouts with R = 1.
        kept, kept_tokens: privileged rollouts that are used (those with R = 1, or all), and the tokens that the model
            wrote in them.
        too_long, no_solution, no_feedback, errors: privileged rollouts that were skipped or lost, by reason.
        settled_at, ended_at: wall-clock seconds at which the normal rollouts, and then the group, were done.
        size: K, how many normal rollouts were asked for.
        unscored: lost rollouts that ended, but without a reward that is a finite number.
        truncated: normal rollouts that were scored and had been stopped by the length limit.
        overlong: whether the plain prompt was above the length limit, so that the rollouts saw its end only.
        privileged_truncated: scored privileged rollouts that had been stopped by the length limit.
        skipped_truncated, kept_truncated: how many of those were left out for it, and how many are used all the same.
        first_error, first_error_at: the first error that cost a normal rollout, and its wall-clock time in seconds.
        reissued: whether this is a cliff of the step before, which has privileged rollouts only in this one.
        plain_prompt_ids: of a cliff that is re-issued in the next step, what its rollouts read; empty for others.
        plain_signs: signs of copying (:class:`~recipe.hdpo.algorithm.gate.Signs`, as a dict) in the correct normal
            rollouts that came to their end; what they are compared with is the text that a cliff would have been shown.
        kept_signs: the same of the kept privileged rollouts, by the key of their row.
        dropped: how many privileged rollouts the gate left out, by its reason.
        step_check_errors: how often the step check failed on a privileged rollout.
        by_source: by source of privileged text the ``rollouts`` that were scored, and how many of them were ``solved``
            and ``kept``; a source that had none is not there.
        attempts: of a cliff that is re-issued in the next step, the failed rollouts that are shown, as
            :func:`~recipe.hdpo.algorithm.feedback.to_json` writes them; empty for others.
        uid: the group's id in this step, the first part of its rows' keys.
        cliff_uid: of a re-issued cliff, the uid of the group whose rollouts failed.
        successes: normal rollouts with R = 1.
        privileged_error: the first error that cost a privileged rollout; empty for none.
        privileged: what the privileged prompt shows, and told: each scored privileged rollout, where texts are
            written down (``rollout/telling.py``); empty elsewhere.
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
    size: int = 0
    unscored: int = 0
    truncated: int = 0
    overlong: bool = False
    privileged_truncated: int = 0
    skipped_truncated: int = 0
    kept_truncated: int = 0
    first_error: str = ""
    first_error_at: float = 0.0
    reissued: bool = False
    plain_prompt_ids: list[int] = field(default_factory=list)
    plain_signs: list[dict[str, Any]] = field(default_factory=list)
    kept_signs: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    step_check_errors: int = 0
    by_source: dict[str, dict[str, int]] = field(default_factory=dict)
    no_feedback: int = 0
    attempts: str = ""
    uid: str = ""
    cliff_uid: str = ""
    successes: int = 0
    privileged: dict[str, Any] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)
    privileged_error: str = ""

    def lose_privileged(self, error: BaseException) -> None:
        """Count a privileged rollout that an error cost; the first one is kept as text."""
        self.errors += 1
        self.privileged_error = self.privileged_error or error_text(error)

    def count(self, source: str, **counts: int) -> None:
        """Add to the counts of one source (``rollouts``, ``solved``, ``kept``)."""
        found = self.by_source.setdefault(source, dict.fromkeys(SOURCE_COUNTS, 0))
        for name, number in counts.items():
            found[name] += number


def is_success(reward: float, success_reward: float) -> bool:
    """R = 1: whether a reward counts as a correct answer. NaN never does.

    Compared in float32, in which verl carries rewards: a reward of 0.9 reaches 0.9 before and after that journey.
    """
    return bool(np.float32(reward) >= np.float32(success_reward))
