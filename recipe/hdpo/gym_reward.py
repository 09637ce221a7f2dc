"""Reward for reasoning-gym's tasks: R is what the task's own verifier gives, and failures come with feedback.

    python -m recipe.hdpo.data --gym leg_counting chain_sum --out data/gym
    reward.custom_reward_function.path=recipe/hdpo/gym_reward.py
    reward.custom_reward_function.name=compute_score
    +control=feedback

The answer is what stands after the last "####" up to the response's end, or in the last ``\\boxed{...}``.
"""

import logging
from typing import Any

from recipe.hdpo.algorithm.cliff import UNSCORED
from recipe.hdpo.answers import gym
from recipe.hdpo.math_answer import after_thinking, final_answer, with_opened_thinking
from recipe.hdpo.math_process import Unscored, call

logger = logging.getLogger(__name__)

# The first call imports reasoning-gym.
SECONDS = 60.0
MAX_ANSWER_CHARS = 4000
NO_ANSWER = 'There is no final answer: write "####" and after it nothing but the answer.'


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    thinking_opened: bool = False,
    **kwargs: Any,
) -> dict[str, Any]:
    """verl's custom reward function; called from many threads at once.

    Args:
        ground_truth: :func:`recipe.hdpo.answers.gym.ground_truth`.
        thinking_opened: as in :mod:`recipe.hdpo.reward`.
        data_source, extra_info, kwargs: not used; verl passes them.

    Returns:
        {"score": R, "acc": 1.0 where R is, "feedback": text, "hdpo_unscored": ""}. The feedback of a failure says what
        was read as the answer and what the verifier gave it, and not the right answer. What cannot be scored has R 0.0
        and its reason under "hdpo_unscored", as in :mod:`recipe.hdpo.reward`.
    """
    response = with_opened_thinking(solution_str) if thinking_opened else solution_str
    answer, feedback, unscored, score = answer_in(response), "", "", 0.0
    if answer is None:
        feedback = NO_ANSWER
    elif len(answer) > MAX_ANSWER_CHARS:
        feedback = f"The answer has {len(answer)} characters: no answer to this problem is so long."
    else:
        try:
            score = call(gym.score, ground_truth, answer, seconds=SECONDS)
        except RuntimeError:
            # No process could be started: no score would mean anything.
            raise
        except Exception as reason:
            # Also what the verifier raises on the row's own answer: it says nothing of the response.
            unscored = (
                str(reason) if isinstance(reason, (Unscored, ValueError)) else f"{type(reason).__name__}: {reason}"
            )
            logger.warning("%s: not scored: %s", data_source, unscored)
        if score < 1.0 and not unscored:
            feedback = f'The answer was read as "{answer}". The verifier gives it {score:g} of 1.'
    return {"score": score, "acc": float(score >= 1.0), "feedback": feedback, UNSCORED: unscored}


def answer_in(response: str) -> str | None:
    """The final answer of a response, also one of several lines; None where there is none."""
    _, marker, after = after_thinking(response).rpartition("####")
    return (after.strip() or None) if marker else final_answer(response)
