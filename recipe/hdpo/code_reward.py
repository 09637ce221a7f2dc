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
import time
from typing import Any

from recipe.hdpo.algorithm.cliff import UNSCORED

logger = logging.getLogger(__name__)

NO_PROGRAM = "There is no program: write one ```python block."
# Of each text in the feedback.
MAX_CHARS = 600
# For all tests in one process, for one alone, and for all of them one by one.
SECONDS, SECONDS_OF_ONE, MOST_SECONDS = 5, 10, 120.0
# Tests that a share is of.
SHARE_OF = 10


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
        all_or_nothing: R is 1.0 where every test passes, else 0.0; if false, the share that pass of the first ten and
            of the first one that fails; of all, where they did not end in time together.
        data_source, extra_info, kwargs: not used; verl passes them.

    Returns:
        {"score": R, "acc": 1.0 where all tests pass, "feedback": text, "hdpo_unscored": ""}. The feedback of a failure
        is the first test that failed: its input, what was expected and what came, or the error. Test cases that cannot
        be read, or not be run, have R 0.0 and a reason under "hdpo_unscored", as in :mod:`recipe.hdpo.reward`.
    """
    feedback, unscored, share = "", "", 0.0
    try:
        if "```python" in solution_str:
            program = solution_str.split("```python")[-1].split("```")[0]
            share, feedback = judged(_cases(ground_truth), program, all_or_nothing)
        else:
            _cases(ground_truth)
            feedback = NO_PROGRAM
    except ValueError as reason:
        unscored = str(reason)
    except Exception as reason:
        # The machine's fault and not the program's, whose own errors come back as results.
        unscored = f"the tests could not be run ({type(reason).__name__}: {reason})"
    if unscored:
        logger.warning("%s: not scored: %s", data_source, unscored)
    return {"score": share, "acc": float(share >= 1.0), "feedback": feedback, UNSCORED: unscored}


def judged(cases: dict[str, Any], program: str, all_or_nothing: bool = True) -> tuple[float, str]:
    """R of a program and what to say of the first test that it failed.

    verl runs all tests in one process, which stops at the first failure. Where that process did not end in time, or a
    share is asked for, they run one by one.
    """
    inputs, outputs = cases["inputs"], cases["outputs"]
    count, end = len(inputs), time.monotonic() + MOST_SECONDS
    passed, said = _run(cases, program, SECONDS)
    if passed == count:
        return 1.0, ""
    if said and all_or_nothing:
        return 0.0, told(passed, inputs, outputs, said)
    right, feedback = 0, ""
    # Which one failed is not known where the process was ended: then of all.
    tried = dict.fromkeys([*range(min(count, SHARE_OF)), passed]) if said else range(count)
    for number in tried:
        if time.monotonic() > end:
            share = 0.0 if all_or_nothing else right / len(tried)
            return share, feedback or told(number, inputs, outputs, {})
        one = cases | {"inputs": inputs[number : number + 1], "outputs": outputs[number : number + 1]}
        good, said = _run(one, program, SECONDS_OF_ONE)
        right += good
        if not good:
            feedback = feedback or told(number, inputs, outputs, said)
            if all_or_nothing:
                return 0.0, feedback
    return right / len(tried), feedback


def _run(cases: dict[str, Any], program: str, seconds: int) -> tuple[int, dict[str, Any]]:
    """How many tests passed before the first failure, and what verl says of that one; nothing where it was ended."""
    from verl.utils.reward_score.prime_code.utils import check_correctness

    results, said = check_correctness(in_outs=cases, generation=program, timeout=seconds, debug=False)
    passed = next((i for i, result in enumerate(results) if result is not True), len(results))
    return passed, dict(said[0]) if len(said) and passed < len(cases["inputs"]) else {}


def _cases(truth: Any) -> dict[str, Any]:
    try:
        cases = json.loads(truth) if isinstance(truth, str) else truth
        inputs, outputs = cases["inputs"], cases["outputs"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError('the ground truth is no JSON of test cases, {"inputs": [...], "outputs": [...]}') from error
    if not inputs or len(inputs) != len(outputs):
        raise ValueError(f"the ground truth has {len(inputs)} inputs and {len(outputs)} outputs")
    return dict(cases)


def told(number: int, inputs: list[Any], outputs: list[Any], said: dict[str, Any]) -> str:
    """A failed test in words.

    Args:
        number: which one, from 0.
        inputs, outputs: of all tests.
        said: what verl's runner says of it; nothing where it was ended.
    """
    if "error" in said:
        came = f"Error: {said['error']}"
    elif "error_message" in said and "output" in said:
        came = f"Output:\n{_cut(said['output'])}"
    else:
        came = "It did not end within the time limit, or the process ended."
    asked, expected = _cut(inputs[number]), _cut(outputs[number])
    return f"Test {number + 1} failed. Input:\n{asked}\nExpected:\n{expected}\n{_cut(came)}"


def _cut(text: Any) -> str:
    text = str(text).strip()
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} ... ({len(text)} characters)"
