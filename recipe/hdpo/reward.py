"""Verifiable reward for mathematics: R = 1.0 for the right final answer, else 0.0.

    reward.custom_reward_function.path=recipe/hdpo/reward.py
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.strict_format=False

The final answer stands after the last "####" or in the last ``\\boxed{...}``. Equal texts and plain numbers are decided
at once; all else goes to math-verify, in a process with a limit on time and memory. Nothing of a response is evaluated.

A response without a marker is wrong. What HDPO distills was made with the answer in view, and a small model that
babbles around that number would pass for correct wherever an answer is looked for in free text.
"""

import logging
from typing import Any

from recipe.hdpo.math_answer import final_answer, normalise, same_answer
from recipe.hdpo.math_process import Unscored, is_equal

logger = logging.getLogger(__name__)

# Of what this file, math_answer.py and math_process.py decide together. Raise it with every change of a grade:
# results name it, and the grades of each version are pinned in tests/hdpo/test_grader_version.py.
GRADER_VERSION = 1

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
    **kwargs: Any,
) -> dict[str, float]:
    """verl's custom reward function; called from many threads at once.

    Args:
        data_source: named in warnings.
        solution_str: the response.
        ground_truth: the final answer; a number is taken as its text.
        strict_format: a response without "####" or ``\\boxed{...}`` scores 0.0; if false, math-verify looks for an
            answer at its end.
        extra_info, kwargs: not used; verl passes them.

    Returns:
        {"score": R, "acc": R} with R 0.0 or 1.0. A response that cannot be scored, whatever it holds, gets 0.0
        and one warning.

    Raises:
        RuntimeError: answers cannot be compared at all (see math_process.is_equal).
    """
    try:
        score = float(_is_correct(solution_str, ground_truth, strict_format))
    except Unscored as reason:
        shown = solution_str[-60:] if isinstance(solution_str, str) else solution_str
        logger.warning("%s: scored 0.0 unchecked: %s; response ends with %.80r", data_source, reason, shown)
        score = 0.0
    return {"score": score, "acc": score}


def _is_correct(response: Any, truth: Any, strict_format: bool) -> bool:
    if isinstance(truth, (int, float)) and not isinstance(truth, bool):
        truth = str(truth)
    for name, value in (("response", response), ("ground truth", truth)):
        if not isinstance(value, str):
            raise Unscored(f"the {name} is {type(value).__name__}, not text")
    answer = final_answer(response)
    if answer is not None:
        same = same_answer(answer, truth)
        if same is not None:
            return same
        if len(answer) > MAX_ANSWER_CHARS:
            raise Unscored(f"the final answer has {len(answer)} characters, more than {MAX_ANSWER_CHARS}")
        return is_equal(rf"\boxed{{{normalise(answer)}}}", rf"\boxed{{{normalise(truth)}}}")
    if strict_format or not response.strip() or not truth.strip():
        return False
    return is_equal(response[-TAIL_CHARS:], rf"\boxed{{{normalise(truth)}}}")
