"""What is counted of rollouts, by hand."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from recipe.hdpo.evaluation.records import GREEDY, Results
from recipe.hdpo.preflight.rollouts import Rollouts, cliff_shares, lengths, solve_rates
from tests.hdpo.evaluation.made_results import meta, sample
from tests.hdpo.preflight.made import rollouts

MIXED = rollouts({"a": "0000", "b": "0100", "c": "1111", "d": "00?0"})


def estimates(rows: list[dict]) -> dict[int, tuple[int, float]]:
    return {row["k"]: (row["problems"], row["share"]["estimate"]) for row in rows}


def test_the_share_of_cliffs_is_the_chance_that_k_of_the_graded_rollouts_all_fail() -> None:
    found = estimates(cliff_shares(MIXED, seed=0))
    assert list(found) == [1, 2, 4]
    b2 = comb(3, 2) / comb(4, 2)
    assert found[1] == (4, pytest.approx((1 + 3 / 4 + 0 + 1) / 4))
    assert found[2] == (4, pytest.approx((1 + b2 + 0 + 1) / 4))
    # d has three graded rollouts only.
    assert found[4] == (3, pytest.approx(1 / 3))


def test_k_itself_is_reported_where_it_is_no_power_of_two() -> None:
    assert [row["k"] for row in cliff_shares(rollouts({"a": "001"}), seed=0)] == [1, 2, 3]


@pytest.mark.parametrize(("marks", "share", "low", "high"), [("0000", 1.0, 0.8, 1.0), ("1111", 0.0, 0.0, 0.2)])
def test_all_or_no_cliffs_have_an_interval_that_is_no_point(marks: str, share: float, low: float, high: float) -> None:
    [*_, last] = cliff_shares(rollouts({str(i): marks for i in range(20)}), seed=0)
    assert last["share"]["estimate"] == share
    assert low <= last["share"]["low"] < last["share"]["high"] <= high


def test_a_group_with_a_lost_rollout_is_no_cliff_as_in_training() -> None:
    assert MIXED.cliffs() == ["a"]
    assert rollouts({"a": "???"}).cliffs() == []
    assert cliff_shares(rollouts({"a": "???"}), seed=0) == []


def test_solve_rates_are_over_the_problems_that_are_asked_for_and_have_a_graded_rollout() -> None:
    shown = rollouts({"a": "01", "b": "11", "c": "00", "d": "??", "e": "1?"})
    found = solve_rates(shown, ["a", "c", "d", "e", "not drawn"], seed=0)
    assert (found["problems"], found["rollouts"]) == (3, 5)
    assert found["pass"]["1"]["estimate"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert found["pass"]["2"]["estimate"] == pytest.approx((1 + 0) / 2)
    assert solve_rates(shown, [], seed=0) == {"problems": 0, "rollouts": 0, "pass": {}}


def test_lengths_are_told_apart_by_outcome() -> None:
    made = rollouts({"a": "01", "b": "10"}, {"a": [40, 10], "b": [20, 80]})
    found = lengths(made)
    assert found["solved"] == {
        **{"rollouts": 2, "truncated": 0, "p10": pytest.approx(11), "median": 15.0},
        **{"p90": pytest.approx(19), "longest": 20.0},
    }
    assert (found["failed"]["median"], found["failed"]["longest"], found["all"]["rollouts"]) == (60.0, 80.0, 4)
    nothing = lengths(rollouts({"a": "00"}, truncated=True))
    assert nothing["solved"] == dict.fromkeys(("p10", "median", "p90", "longest")) | {"rollouts": 0, "truncated": 0}
    assert nothing["failed"]["truncated"] == 2


def test_greedy_and_ungraded_samples_are_told_apart_from_graded_ones() -> None:
    samples = [sample("p1", 1, True), sample("p1", GREEDY, True), sample("p1", 0, False, unscored="no time")]
    found = Rollouts.of(Results(None, meta(1, n=2), samples))  # type: ignore[arg-type]
    assert [s.sample for s in found.graded["p1"]] == [1] and [s.sample for s in found.ungraded] == [0]
    assert found.n == 2 and list(found.correct()) == ["p1"] and found.correct(["another"]) == {}
    assert np.concatenate(found.counts(["p1"])).tolist() == [1, 1]
