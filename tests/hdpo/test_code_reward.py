"""The reward of programs: verl's test runner, and the first failed test as feedback."""

from __future__ import annotations

import json

import pytest

from recipe.hdpo.algorithm.cliff import UNSCORED
from recipe.hdpo.code_reward import NO_PROGRAM, compute_score, first_failure

CASES = json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "12\n"]})
READ = "a, b = map(int, input().split())\n"


def scored(program: str, **options: object) -> dict:
    return compute_score("d", f"Let me think.\n```python\n{program}\n```", CASES, **options)


def test_a_program_that_passes_every_test_has_reward_1_and_no_feedback() -> None:
    found = scored(READ + "print(a + b if a == 1 else a * b)")
    assert found == {"score": 1.0, "acc": 1.0, "feedback": "", UNSCORED: ""}


def test_the_first_failed_test_is_told_with_input_expected_and_output() -> None:
    found = scored(READ + "print(a + b)")
    assert (found["score"], found["acc"]) == (0.0, 0.0)
    assert found["feedback"] == "Test 2 failed. Input:\n3 4\nExpected:\n12\nOutput:\n7"
    assert scored(READ + "print(a + b)", all_or_nothing=False)["score"] == 0.5


def test_an_error_is_told_with_its_kind() -> None:
    assert "Error: ZeroDivisionError('division by zero')" in scored("print(1 / 0)")["feedback"]
    assert "SyntaxError" in scored("def (")["feedback"]


def test_a_program_that_never_ends_is_told_so() -> None:
    found = [{"test_case": {"input": "1", "output": "2", "res": "[-1]"}}]
    assert first_failure(found).endswith("It did not end within the time limit, or the process ended.")
    assert first_failure([{"test_case": {"res": "[True]"}}]) == first_failure([]) == "A test failed."


def test_a_response_without_a_program_is_told_so() -> None:
    assert compute_score("d", "print(3)", CASES)["feedback"] == NO_PROGRAM


@pytest.mark.parametrize("truth", ["5", "{", '{"inputs": []}', '{"inputs": ["1"], "outputs": []}'])
def test_test_cases_that_cannot_be_read_make_the_rollout_lost_and_not_failed(truth: str) -> None:
    found = compute_score("d", "```python\nprint(1)\n```", truth)
    assert "the ground truth" in found[UNSCORED] and found["feedback"] == ""
