"""Reward for programs: verl's own check by test cases (``prime_code``), with what failed as feedback.

    reward.custom_reward_function.path=recipe/hdpo/code_reward.py
    reward.custom_reward_function.name=compute_score
    +control=feedback

The program is the last ```python block of the response. ``prime_code`` runs it on this machine, in a process with a
time limit and with the most dangerous functions taken away. That is no sandbox: train in a container that holds nothing
of worth, as with verl's own code reward.
"""

import json
import logging
from typing import Any

from recipe.hdpo.algorithm.cliff import UNSCORED

logger = logging.getLogger(__name__)

NO_PROGRAM = "There is no program: write one ```python block."
# Of each text in the feedback.
MAX_CHARS = 600


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    all_or_nothing: bool = True,
    **kwargs: Any,
) -> dict[str, Any]:
    """verl's custom reward function; called from many threads at once.

    Args:
        ground_truth: test cases as JSON text, ``{"inputs": [...], "outputs": [...]}``, with ``"fn_name"`` where a
            function is called and standard input is not read.
        all_or_nothing: R is 1.0 where every test passes, else 0.0; if false, the share of the first ten that pass.
        data_source, extra_info, kwargs: not used; verl passes them.

    Returns:
        {"score": R, "acc": 1.0 where all tests pass, "feedback": text, "hdpo_unscored": ""}. The feedback of a failure
        is the first test that failed: its input, what was expected and what came, or the error. Test cases that cannot
        be read have R 0.0 and a reason under "hdpo_unscored", as in :mod:`recipe.hdpo.reward`.
    """
    from verl.utils.reward_score import prime_code

    feedback, unscored, share = "", "", 0.0
    try:
        cases = _cases(ground_truth)
    except ValueError as reason:
        logger.warning("%s: not scored: %s", data_source, reason)
        unscored = str(reason)
    else:
        if "```python" in solution_str:
            passed, found = prime_code.compute_score(solution_str, cases, continuous=True)
            share = float(passed)
            feedback = "" if share >= 1.0 else first_failure(found or [])
        else:
            feedback = NO_PROGRAM
    passed_all = float(share >= 1.0)
    score = passed_all if all_or_nothing else share
    return {"score": score, "acc": passed_all, "feedback": feedback, UNSCORED: unscored}


def _cases(truth: Any) -> dict[str, Any]:
    try:
        cases = json.loads(truth) if isinstance(truth, str) else truth
        inputs, outputs = cases["inputs"], cases["outputs"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError('the ground truth is no JSON of test cases, {"inputs": [...], "outputs": [...]}') from error
    if not inputs or len(inputs) != len(outputs):
        raise ValueError(f"the ground truth has {len(inputs)} inputs and {len(outputs)} outputs")
    return dict(cases)


def first_failure(found: list[dict[str, Any]]) -> str:
    """The first test that failed, in words.

    Args:
        found: what ``prime_code`` says of each test, in order.
    """
    for number, said in enumerate(found, 1):
        case = said.get("test_case", {})
        if case.get("res") == "[True]":
            continue
        if "error" in said:
            came = f"Error: {said['error']}"
        elif "error_message" in said and "output" in said:
            came = f"Output:\n{_cut(said['output'])}"
        else:
            came = "It did not end within the time limit, or the process ended."
        asked, expected = _cut(case.get("input")), _cut(case.get("output"))
        return f"Test {number} failed. Input:\n{asked}\nExpected:\n{expected}\n{_cut(came)}"
    return "A test failed."


def _cut(text: Any) -> str:
    text = str(text).strip()
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} ... ({len(text)} characters)"
