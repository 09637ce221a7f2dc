"""What is asked of a rollout before it counts: a reward that is a number, and a response that has its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from recipe.hdpo.algorithm.cliff import UNSCORED


class UnscoredRollout(ValueError):
    """Nobody knows whether the rollout failed. It is lost: it makes no cliff and has no advantage."""


class UnusableOutput(ValueError):
    """What an agent loop returned cannot be trained on by HDPO. The rollout is lost."""


def single_output(outputs: Sequence[AgentLoopOutput], agent_name: str, *, text_only: bool) -> AgentLoopOutput:
    """The one output of a session.

    Args:
        outputs: what the agent loop returned, at least one.
        text_only: whether images, videos and sounds are refused.

    Raises:
        UnusableOutput: there are several, or the one holds more than text.
    """
    if len(outputs) > 1:
        raise UnusableOutput(
            f"agent loop {agent_name} returned {len(outputs)} outputs for one rollout. HDPO takes one: the K rollouts "
            "of a prompt, its cliffs and its advantages are counted by outputs. Let it return one, with a "
            "response_mask of 0 where a tool, an environment or another agent wrote"
        )
    [output] = outputs
    kinds = sorted(kind for kind, values in (output.multi_modal_data or {}).items() if values)
    if kinds and text_only:
        raise UnusableOutput(
            f"agent loop {agent_name} returned {' and '.join(kinds)}, from a tool or the prompt, and HDPO's kept "
            "trajectories are text: use tools that answer in text"
        )
    return output


def usable_reward(score: Any, extra_info: Mapping[str, Any] | None = None) -> float:
    """The reward of a rollout as a number; the one place where a reward result is judged to be none.

    Args:
        score: what the reward function gave as score.
        extra_info: the reward's extra information, which may say under :data:`~recipe.hdpo.algorithm.cliff.UNSCORED`
            that the response could not be graded, and why; or that verl's manager `rate_limited` made up the score.

    Raises:
        UnscoredRollout: that is so, or the score is None, NaN, infinite (in float32, which verl keeps
            rewards in), or no number.
    """
    if extra_info and extra_info.get(UNSCORED):
        raise UnscoredRollout(
            f"the reward function could not grade the response: {extra_info[UNSCORED]}. The rollout counts as lost, "
            "not as failed"
        )
    if extra_info and (outage := _outage(extra_info)):
        raise UnscoredRollout(f"{outage}. The rollout counts as lost, not as failed")
    if score is None:
        raise UnscoredRollout(
            "the reward function returned None, which is no reward (a branch without `return`, or a dict whose 'score' "
            "is None): let it return a number. The rollout counts as lost, not as failed"
        )
    try:
        reward = float(score)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UnscoredRollout(
            f"the reward function returned {score!r:.100} of type {type(score).__name__}, which is no number. The "
            "rollout counts as lost, not as failed"
        ) from error
    if not torch.tensor(reward, dtype=torch.float32).isfinite():
        raise UnscoredRollout(f"the reward is {reward}, not a finite number: the rollout counts as lost, not as failed")
    return reward


def _outage(extra_info: Mapping[str, Any]) -> str:
    """What verl's reward manager ``rate_limited`` turned into a score of 0; empty where a reward function returned.

    What that returns as a dict has a ``score``, and a number leaves ``acc`` alone.
    """
    if "score" in extra_info:
        return ""
    if "error" in extra_info:
        return f"the reward function failed: {extra_info['error'] or 'an error without a text'}"
    return "the reward function has not returned within reward.timeout" if extra_info.get("timeout") is True else ""


def is_cut_off(output: AgentLoopOutput, longest: int, end_ids: Collection[int]) -> bool:
    """Whether a response was stopped before its end.

    Where the agent loop hands on why the engine stopped, that decides; verl's own does not. Then a response is cut off
    when it has all the tokens that it may have, and the last of them ends nothing.

    Args:
        longest: how many tokens the response may have.
        end_ids: ids of the tokens that end a response.
    """
    reason = output.extra_fields.get("stop_reason") or output.extra_fields.get("finish_reason")
    if reason in ("length", "abort", "aborted"):
        return True
    if reason == "stop":
        return False
    return len(output.response_ids) >= longest and not (output.response_ids and output.response_ids[-1] in end_ids)


def end_token_ids(tokenizer: Any, generation_config: Any) -> frozenset[int]:
    """Ids of the tokens that end a response: the tokenizer's, and those of the model's generation config."""
    found: list[int] = []
    for source in (tokenizer, generation_config):
        ids = getattr(source, "eos_token_id", None)
        found += ids if isinstance(ids, list) else [ids] if ids is not None else []
    return frozenset(found)
