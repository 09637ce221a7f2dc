"""Signs of copying and valid steps in correct responses, over problems."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.hdpo.algorithm.leakage import reference_pattern
from recipe.hdpo.evaluation.leaks import SignReader, correct_samples, leakage_line, recorded_leakage, step_figures
from recipe.hdpo.evaluation.records import Sample, read_results
from tests.hdpo.evaluation.made_results import sample, write_results
from tests.hdpo.preflight.made import rollouts

WORDS: dict[str, int] = {}
SHOWN = "three and four are seven"
ARITHMETIC = "recipe.hdpo.step_check.arithmetic"


def tokens(text: str) -> list[int]:
    return [WORDS.setdefault(word, len(WORDS)) for word in text.split()]


def reader(ids: str, worked: str = "") -> SignReader:
    return SignReader(tokens, dict.fromkeys(ids, SHOWN), dict.fromkeys(worked, SHOWN), reference_pattern())


def test_shares_are_means_over_problems_of_the_right_rollouts() -> None:
    shown = rollouts({"a": "11", "b": "10"}, response="as the solution says three and four are seven")
    own = rollouts({"c": "10"}, response="count up from three to get there")
    found = reader("abc", worked="ab").table({**shown.correct(), **own.correct()}, seed=0)
    assert (found["problems"], found["rollouts"]) == (3, 4)
    assert found["speaks"]["estimate"] == found["copies"]["estimate"] == pytest.approx(2 / 3)
    assert (found["run"], found["run_share"]) == (5, pytest.approx(5 / 9))
    # c has no worked solution, so nothing is known of its work.
    assert (found["workless"]["estimate"], found["length_share"]) == (0.0, pytest.approx(9 / 5))
    assert found["any"]["estimate"] == pytest.approx(2 / 3)
    assert found["phrases"] == [("the solution says", 3)]


def test_without_a_right_rollout_nothing_is_known() -> None:
    found = reader("a").table({}, seed=0)
    assert (found["problems"], found["rollouts"], found["phrases"]) == (0, 0, [])
    assert {found[name] for name in ("speaks", "copies", "workless", "any", "run", "run_share")} == {None}


def test_a_problem_without_a_solution_tells_whether_its_responses_speak_of_one_and_nothing_of_copying() -> None:
    known = rollouts({"a": "1"}, response=SHOWN)
    none = rollouts({"b": "1"}, response="as the solution says seven")
    one_known = SignReader(tokens, {"a": SHOWN, "b": ""}, {"a": SHOWN}, reference_pattern())
    found = one_known.table({**known.correct(), **none.correct()}, seed=0)
    assert (found["problems"], found["speaks"]["estimate"]) == (2, 0.5)
    assert (found["copies"]["estimate"], found["run"], found["run_share"]) == (1.0, 5, 1.0)


def test_correct_samples_are_the_drawn_ones_that_reach_the_success_reward(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path / "r", {"p1": [1, 0, 1, 1], "p2": [1, 0, 0, 0]}))
    assert {id_: [s.sample for s in found] for id_, found in correct_samples(results).items()} == {"p1": [1, 2]}


def _said(*texts: str) -> list[Sample]:
    return [sample("p", i, True, response=text) for i, text in enumerate(texts)]


def test_valid_steps_are_means_over_problems_of_the_responses_that_have_steps() -> None:
    correct = {
        "p1": _said("2 + 2 = 4\n4 + 1 = 6\n#### 6", "#### 6"),  # a half, and none
        "p2": _said("2 + 3 = 5"),
        "p3": _said("five", "it is five"),
    }
    found = step_figures(correct, ARITHMETIC, seconds=20.0, seed=0)
    assert found["valid_steps"]["estimate"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["without_steps"]["estimate"] == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert (found["step_check"], found["step_check_errors"]) == (ARITHMETIC, 0)


def test_a_check_that_fails_is_counted_and_leaves_its_response_out(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def check(text):\n    return 1 / text.count('=')\n")
    found = step_figures({"p": _said("a = b", "nothing")}, f"{tmp_path}/mine.py:check", seconds=20.0, seed=0)
    assert (found["step_check_errors"], found["valid_steps"]["estimate"]) == (1, 1.0)
    nothing = step_figures({}, ARITHMETIC, seconds=20.0, seed=0)
    assert nothing["valid_steps"] is nothing["without_steps"] is None


def test_the_line_names_what_is_known_and_older_results_have_none(tmp_path: Path) -> None:
    found = reader("a").table(rollouts({"a": "11"}, response=SHOWN).correct(), seed=0)
    line = leakage_line(found)
    assert line.startswith("Of 2 correct responses to 1 problem: speak of a reference 0.000")
    assert "half or more 1.000" in line and "shorter" not in line and "steps" not in line
    folder = write_results(tmp_path / "r", {"p1": [1, 0]})
    assert recorded_leakage(read_results(folder)) is None
    (folder / "summary.json").write_text('{"leakage": {"rollouts": 3}}')
    assert recorded_leakage(read_results(folder)) == {"rollouts": 3}
