"""The reward of programs: verl's test runner, and the first failed test as feedback."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from recipe.hdpo import code_reward
from recipe.hdpo.algorithm.cliff import UNSCORED
from recipe.hdpo.code_reward import NO_PROGRAM, compute_score, told

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


def test_a_test_that_was_ended_is_told_so() -> None:
    assert told(0, ["1"], ["2"], {}).endswith("It did not end within the time limit, or the process ended.")


TWELVE = json.dumps({"inputs": [f"{n}\n" for n in range(12)], "outputs": [f"{2 * n}\n" for n in range(12)]})


@pytest.mark.parametrize(("wrong_from", "share"), [(10, 10 / 11), (2, 2 / 10), (0, 1 / 10), (12, 1.0)])
def test_a_program_that_fails_any_test_is_wrong_however_many_there_are(wrong_from: int, share: float) -> None:
    response = f"```python\nn = int(input())\nprint(2 * n if n < {wrong_from} else 0)\n```"
    found = compute_score("d", response, TWELVE)
    assert found["score"] == found["acc"] == float(wrong_from == 12) and found[UNSCORED] == ""
    # Twice 0 is 0.
    first = max(wrong_from, 1) + 1
    assert found["feedback"].startswith(f"Test {first} failed. Input:\n{first - 1}\n") or wrong_from == 12
    assert compute_score("d", response, TWELVE, all_or_nothing=False)["score"] == pytest.approx(share)


def test_tests_that_do_not_end_in_time_together_are_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_reward, "SECONDS", 2)
    program = "import time\nn = int(input())\ntime.sleep(0.7)\nprint(2 * n if n < 4 else 0)"
    cases = {"inputs": [*"01234"], "outputs": [*"02468"]}
    score, feedback = code_reward.judged(cases, program)
    assert score == 0.0 and feedback.startswith("Test 5 failed.") and feedback.endswith("Output:\n0")


def test_a_slow_program_is_right_where_every_single_test_passes_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_reward, "_run", lambda cases, *_: (int(len(cases["inputs"]) == 1), {}))
    cases = {"inputs": [*"01234"], "outputs": [*"02468"]}
    assert code_reward.judged(cases, "") == (1.0, "")
    monkeypatch.setattr(code_reward, "MOST_SECONDS", -1.0)
    score, feedback = code_reward.judged(cases, "")
    assert score == 0.0 and "Test 1 failed" in feedback and "within the time limit" in feedback


@pytest.mark.parametrize(("all_or_nothing", "share"), [(True, 0.0), (False, 4 / 5)])
def test_tests_that_were_not_reached_before_the_end_did_not_pass(
    monkeypatch: pytest.MonkeyPatch, all_or_nothing: bool, share: float
) -> None:
    seconds = iter([0.0, 0.0, 0.0, 0.0, 0.0, 1e9])
    monkeypatch.setattr(code_reward, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(code_reward, "_run", lambda cases, *_: (int(len(cases["inputs"]) == 1), {}))
    score, feedback = code_reward.judged({"inputs": [*"01234"], "outputs": [*"02468"]}, "", all_or_nothing)
    assert score == share and feedback.startswith("Test 5 failed.")


def test_a_share_is_of_all_tests_where_nobody_knows_which_one_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        code_reward, "_run", lambda cases, *_: (int(cases["inputs"] not in (["11"], [*map(str, range(12))])), {})
    )
    score, feedback = code_reward.judged({"inputs": [*map(str, range(12))], "outputs": ["x"] * 12}, "", False)
    assert score == pytest.approx(11 / 12) and feedback.startswith("Test 12 failed.")


@pytest.mark.parametrize(("returned", "right"), [("a + b", True), ("a * b", False)])
def test_a_function_is_called_in_every_way_that_tests_are_run(returned: str, right: bool) -> None:
    truth = json.dumps({"fn_name": "add", "inputs": ["1\n2", "3\n4"], "outputs": ["3", "7"]})
    response = f"```python\ndef add(a, b):\n    return {returned}\n```"
    for all_or_nothing in (True, False):
        found = compute_score("d", response, truth, all_or_nothing=all_or_nothing)
        assert found["score"] == float(right)
        assert right or found["feedback"] == "Test 1 failed. Input:\n1\n2\nExpected:\n3\nOutput:\n2"


def test_tests_that_the_machine_cannot_run_make_the_rollout_lost_and_not_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_memory(*_: object) -> None:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(code_reward, "_run", no_memory)
    found = scored("print(3)")
    assert found["score"] == 0.0 and found["feedback"] == ""
    assert found[UNSCORED] == "the tests could not be run (OSError: Cannot allocate memory)"


def test_a_response_without_a_program_is_told_so() -> None:
    assert compute_score("d", "print(3)", CASES)["feedback"] == NO_PROGRAM


@pytest.mark.parametrize("truth", ["5", "{", '{"inputs": []}', '{"inputs": ["1"], "outputs": []}'])
def test_test_cases_that_cannot_be_read_make_the_rollout_lost_and_not_failed(truth: str) -> None:
    found = compute_score("d", "```python\nprint(1)\n```", truth)
    assert "the ground truth" in found[UNSCORED] and found["feedback"] == ""
