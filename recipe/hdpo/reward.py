"""Verifiable reward for mathematics: R = 1.0 for the right final answer, else 0.0.

    reward.custom_reward_function.path=recipe/hdpo/reward.py
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.strict_format=False

The final answer stands after the last "####" or in the last ``\\boxed{...}``; what stands in think tags is no answer.
Where the ground truth is a list or a set, boxes that end the response together are one answer. Texts and plain numbers
are compared at once, all else in a process with a limit on time and memory, expressions by math-verify.

What is evaluated: expressions where the ground truth is one (``\\sqrt{12}`` is ``2\\sqrt{3}``), and the sides of an
equation that ends in a plain number. What is not: an answer to a plain number, which must be written out (``9+9`` is
not 18, and 28% is both 28 and 0.28); units; words. The rules by type are in answers/compare.py. No code of a response
is run, and no tolerance is allowed.

A response without a marker is wrong. What HDPO distills was made with the answer in view, and a small model that
babbles around that number would pass for correct wherever an answer is looked for in free text.
"""

import logging
import math
from decimal import Decimal
from typing import Any

from recipe.hdpo.algorithm.cliff import UNSCORED
from recipe.hdpo.answers.compare import same_answer
from recipe.hdpo.math_answer import after_thinking, final_answer, joint_answer, with_opened_thinking
from recipe.hdpo.math_process import Unscored, is_equal

logger = logging.getLogger(__name__)

# Of what this file, math_answer.py, math_process.py and answers/ decide together. Raise it with every change of a
# grade: results name it, and the grades of each version are pinned in tests/hdpo/test_grader_version.py.
GRADER_VERSION = 4

# A longer final answer is compared as text only.
MAX_ANSWER_CHARS = 1000

# Without a marker math-verify looks for an answer in this much of the response's end.
TAIL_CHARS = 3000


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    strict_format: bool = True,
    thinking_opened: bool = False,
    **kwargs: Any,
) -> dict[str, Any]:
    """verl's custom reward function; called from many threads at once.

    Args:
        data_source: named in warnings.
        solution_str: the response.
        ground_truth: the final answer; a number is taken as it is written out.
        strict_format: a response without "####" or ``\\boxed{...}`` scores 0.0; if false, math-verify looks for an
            answer at its end.
        thinking_opened: the chat template ends the prompt with an open think tag, so that a response begins within a
            thought: one without the closing tag has no answer.
        extra_info, kwargs: not used; verl passes them.

    Returns:
        {"score": R, "acc": R, "hdpo_unscored": ""} with R 0.0 or 1.0. What cannot be graded (see :func:`grade`) has R
        0.0, the reason under "hdpo_unscored", and one warning. HDPO's rollouts read that: such a rollout is lost, not
        failed, so it makes no cliff and has no advantage. ``recipe.hdpo.evaluate`` counts it as wrong and says so,
        and plain verl reads the 0.0 alone.
        The key is always there, because verl's batches want the same keys in every row.

    Raises:
        RuntimeError: answers cannot be compared at all (see math_process.is_equal).
    """
    score, unscored = 0.0, ""
    if thinking_opened and isinstance(solution_str, str):
        solution_str = with_opened_thinking(solution_str)
    try:
        score = float(grade(solution_str, ground_truth, strict_format))
    except Unscored as reason:
        shown = solution_str[-60:] if isinstance(solution_str, str) else solution_str
        logger.warning("%s: not graded, score 0.0: %s; response ends with %.80r", data_source, reason, shown)
        unscored = str(reason)
    return {"score": score, "acc": score, UNSCORED: unscored}


def grade(response: Any, truth: Any, strict_format: bool = True) -> bool:
    """Whether the response's final answer is the ground truth.

    An answer that is too long, nests too deep or needs too much memory is wrong: that is its own fault. One that runs
    into the time limit is unscored, since the machine, or the ground truth, may be what is slow. A model that learnt to
    write such answers would escape the negative advantage of a failure; it cannot do so unseen, because every one is
    counted (``hdpo/unscored_rollouts``) and a share above ``hdpo.max_lost_rollouts`` stops the run.

    Raises:
        Unscored: it can't be said: a response that is no text, a ground truth that is none, is too long or can't be
            read, the time limit, or a comparing process that died.
        RuntimeError: answers cannot be compared at all (see math_process.is_equal).
    """
    if isinstance(truth, (int, float)) and not isinstance(truth, bool):
        truth = as_written(truth)
    for name, value in (("response", response), ("ground truth", truth)):
        if not isinstance(value, str):
            raise Unscored(f"the {name} is {type(value).__name__}, not text")
    answer = final_answer(response)
    if answer is not None:
        if _is_same(answer, truth):
            return True
        joint = joint_answer(response)
        return joint is not None and _is_same(joint, truth)
    if strict_format or not response.strip() or not truth.strip():
        return False
    _check_length(truth)
    return is_equal(after_thinking(response)[-TAIL_CHARS:], truth, in_text=True)


def as_written(number: int | float) -> str:
    """A number as text, whatever its length; Python writes no int of more than 4,300 digits."""
    if number in (math.inf, -math.inf) or number != number:
        raise Unscored(f"the ground truth is {number}")
    return str(Decimal(number)) if isinstance(number, int) else repr(number)


def _is_same(answer: str, truth: str) -> bool:
    same = same_answer(answer, truth)
    if same is not None:
        return same
    _check_length(truth)
    return len(answer) <= MAX_ANSWER_CHARS and is_equal(answer, truth)


def _check_length(truth: str) -> None:
    if len(truth) > MAX_ANSWER_CHARS:
        raise Unscored(f"the ground truth has {len(truth)} characters, more than {MAX_ANSWER_CHARS}")
