"""The reward of reasoning-gym's tasks: the verifier's score, and feedback that does not give the answer away."""

from __future__ import annotations

import pytest

from recipe.hdpo.algorithm.cliff import UNSCORED
from recipe.hdpo.answers.gym import ground_truth
from recipe.hdpo.gym_reward import MAX_ANSWER_CHARS, NO_ANSWER, answer_in, compute_score

ENTRY = {"question": "6 + 7 =", "answer": "13", "metadata": {}}
TRUTH = ground_truth("chain_sum", ENTRY)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("so\n#### 13", "13"),
        ("#### 1\nno:\n####\n1 2\n3 4\n", "1 2\n3 4"),
        (r"it is \boxed{13}", "13"),
        ("<think>#### 4</think>nothing", None),
        ("13", None),
        ("#### ", None),
    ],
)
def test_the_answer_is_all_that_stands_after_the_last_marker(response: str, answer: str | None) -> None:
    assert answer_in(response) == answer


def test_a_right_answer_has_no_feedback_and_a_wrong_one_is_named_without_the_right_one() -> None:
    right, wrong = (compute_score("d", f"well\n#### {answer}", TRUTH) for answer in ("13", "12"))
    assert right == {"score": 1.0, "acc": 1.0, "feedback": "", UNSCORED: ""}
    assert wrong["score"] == wrong["acc"] == 0.0 and wrong.keys() == right.keys()
    assert wrong["feedback"] == 'The answer was read as "12". The verifier gives it 0 of 1.'


def test_a_response_without_an_answer_or_with_an_endless_one_is_told_so() -> None:
    assert compute_score("d", "thirteen", TRUTH)["feedback"] == NO_ANSWER
    assert "characters" in compute_score("d", f"#### {'9' * (MAX_ANSWER_CHARS + 1)}", TRUTH)["feedback"]


@pytest.mark.parametrize("answer", ["2 * 433", "2, 433", "Two and others"])
def test_an_answer_on_which_the_verifier_raises_is_wrong(answer: str) -> None:
    entry = {"question": "866?", "answer": "2 \u00d7 433", "metadata": {"number": 866, "factors": [2, 433]}}
    truth = ground_truth("prime_factorization", entry)
    found = compute_score("d", f"#### {answer}", truth)
    assert (found["score"], found[UNSCORED]) == (0.0, "") and f'read as "{answer}"' in found["feedback"]
    assert compute_score("d", "#### 2 \u00d7 433", truth)["score"] == 1.0


def test_a_row_on_which_the_verifier_raises_is_lost_and_not_failed() -> None:
    found = compute_score("d", "#### 13", ground_truth("chain_sum", {"question": "6 + 7 ="}))
    assert found[UNSCORED].startswith("KeyError") and (found["score"], found["feedback"]) == (0.0, "")


def test_what_cannot_be_scored_is_lost_and_not_failed() -> None:
    found = compute_score("d", "#### 13", "13")
    assert "hdpo-data --gym" in found[UNSCORED] and (found["score"], found["feedback"]) == (0.0, "")


def test_a_thought_that_the_prompt_opened_has_no_answer_until_it_is_closed() -> None:
    cut, whole = "maybe\n#### 13", "maybe\n</think>\n#### 13"
    assert [compute_score("d", text, TRUTH, thinking_opened=True)["score"] for text in (cut, whole)] == [0.0, 1.0]
    assert compute_score("d", cut, TRUTH, thinking_opened=True)["feedback"] == NO_ANSWER
