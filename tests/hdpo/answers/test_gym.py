"""reasoning-gym's verifiers as graders: which are safe, and what a ground truth is."""

from __future__ import annotations

import inspect

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS

from recipe.hdpo.answers.gym import RUN_ANSWERS_AS_CODE, ground_truth, score

# Theirs is the word alone: of the ground truth, not of the answer.
HARMLESS = {"number_sorting"}
CODE = ("eval(", "exec(", "parse_expr(", "sympify(")


def test_every_verifier_that_runs_text_as_code_is_refused_or_known_to_be_harmless() -> None:
    found = {
        task
        for task, (kind, _) in DATASETS.items()
        if task != "propositional_logic"  # its parse_expr is a parser of its own
        and any(word in inspect.getsource(kind.score_answer) for word in CODE)
    }
    assert found == set(RUN_ANSWERS_AS_CODE) | HARMLESS


@pytest.mark.parametrize("task", ["chain_sum", "leg_counting", "family_relationships", "mini_sudoku", "knights_knaves"])
def test_the_generators_own_answer_is_right_after_the_entry_was_written_and_read(task: str) -> None:
    entry = reasoning_gym.create_dataset(task, size=1, seed=3)[0]
    truth = ground_truth(task, entry)
    assert score(truth, str(entry["answer"])) == 1.0
    assert score(truth, "no idea") < 1.0


@pytest.mark.parametrize(
    ("truth", "message"),
    [("5", "hdpo-data --gym"), ("{", "hdpo-data --gym"), (ground_truth("countdown", {}), "as code")],
)
def test_another_ground_truth_is_an_error(truth: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(truth, "5")
