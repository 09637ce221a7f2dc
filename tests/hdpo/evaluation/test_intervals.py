"""Intervals: coverage on results whose truth is known, exact small cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import Scenario, measure, scenarios
from recipe.hdpo.evaluation import intervals
from recipe.hdpo.evaluation.intervals import (
    Support,
    bootstrap_mean,
    run_variance,
    two_level_difference,
    two_level_mean,
)

LARGE_STUDY = json.loads((Path(__file__).parents[3] / "docs/results/benchmarks/coverage.json").read_text())
FOUND = {
    (figures["name"], figures["runs"], figures["problems"]): figures["used"] for figures in LARGE_STUDY["scenarios"]
}


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda s: s.name)
def test_the_95_percent_interval_covers_the_truth_as_often_as_in_the_large_study(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 simulations: a coverage to 1.3 %. `python -m benchmarks.coverage` is the large study."""
    monkeypatch.setattr(intervals, "RESAMPLES", 1000)
    measured = measure(scenario, simulations=300)
    large = FOUND[measured["name"], measured["runs"], measured["problems"]]
    assert measured["used"]["coverage"] == pytest.approx(large["coverage"], abs=0.04)
    assert measured["used"]["width"] == pytest.approx(large["width"], rel=0.06)


def test_in_the_large_study_all_intervals_but_three_cover_the_truth_in_94_percent_or_more() -> None:
    assert LARGE_STUDY["simulations"] >= 2000 and len(FOUND) == len(scenarios())
    low = {key: used["coverage"] for key, used in FOUND.items() if used["coverage"] < 0.94}
    pairs = "normal, pairs of runs, their own standard deviation 0.02 beside 0.1"
    assert low == {
        ("greedy, 0% lost and 4% won", 3, 100): pytest.approx(0.91, abs=0.01),
        **{(pairs, 2, 100): pytest.approx(0.90, abs=0.01), (pairs, 3, 100): pytest.approx(0.93, abs=0.01)},
    }


def test_in_the_large_study_no_interval_is_too_long_where_the_bootstrap_alone_is_right() -> None:
    """Means that are not near 0 or 1, values without bounds, and greedy answers of which a few differ."""
    for (name, _, _), used in FOUND.items():
        if name.startswith(("greedy accuracy", "normal")) or name == "pass@1, Beta(0.5, 0.8)":
            assert used["coverage"] <= 0.975, name
        elif name.startswith("greedy, "):
            assert used["coverage"] <= 0.995, name


@pytest.mark.parametrize(("solved", "problems"), [(1, 20), (7, 20), (99, 100)])
def test_of_solved_or_not_the_bounds_are_quantiles_of_beta_distributions(solved: int, problems: int) -> None:
    found = bootstrap_mean(np.repeat([1.0, 0.0], [solved, problems - solved]), 0, (0, 1))
    low = stats.beta(solved, problems - solved + 0.5).ppf(0.025)
    high = stats.beta(solved + 0.5, problems - solved).ppf(0.975)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.006)


def test_a_length_that_seldom_comes_near_its_limit_has_the_plain_bootstraps_interval() -> None:
    lengths = np.random.default_rng(0).normal(300, 60, 100)
    limited = bootstrap_mean(lengths, 0, Support(0, 4096, at_ends=False))
    assert limited == bootstrap_mean(lengths, 0)
    assert bootstrap_mean(lengths, 0, Support(0, 4096)).high > limited.high + 30


def test_runs_that_differ_widen_the_interval_although_the_problems_stay_the_same():
    problems = np.random.default_rng(0).normal(0.5, 0.2, 200)
    equal = two_level_mean(np.stack([problems, problems, problems]), 0)
    differing = two_level_mean(np.stack([problems - 0.1, problems, problems + 0.1]), 0)
    assert differing.estimate == pytest.approx(equal.estimate)
    assert differing.high - differing.low > 5 * (equal.high - equal.low)


def test_equal_values_get_the_exact_bound_and_not_an_empty_interval():
    upper = 1 - 0.05 ** (1 / 20)  # 0.1391: the largest rate at which 0 of 20 still happens in 5 %
    none, all_ = bootstrap_mean(np.zeros(20), 0, (0, 1)), bootstrap_mean(np.ones(20), 0, (0, 1))
    assert (none.low, none.high) == pytest.approx((0.0, upper))
    assert (all_.low, all_.high) == pytest.approx((1 - upper, 1.0))
    difference = two_level_difference(np.zeros((1, 20)), np.zeros((1, 20)), 0, (-1, 1))
    assert (difference.low, difference.high) == pytest.approx((-upper, upper))


def test_one_problem_without_known_bounds_has_no_interval():
    assert bootstrap_mean(np.array([12.0]), 0).low is None


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0, 0.0, 1.0], [0.2, 0.2, 0.2, 0.9]])
def test_very_few_problems_still_give_finite_bounds(values):
    found = bootstrap_mean(np.array(values), 0, (0, 1))
    assert 0 <= found.low <= found.estimate <= found.high <= 1


def test_the_same_seed_gives_the_same_interval_and_another_seed_nearly_the_same():
    values = np.random.default_rng(3).random(200)
    first, again, other = (bootstrap_mean(values, seed) for seed in (1, 1, 2))
    assert first == again
    assert other != first
    assert other.low == pytest.approx(first.low, abs=0.003)


def test_a_constant_advantage_is_exact_however_hard_the_problems_are():
    base = np.random.default_rng(0).random((1, 50))
    found = two_level_difference(base + 0.125, base, 0)
    assert found.estimate == pytest.approx(0.125)
    assert found.high - found.low < 1e-9


def test_pairing_makes_the_interval_narrower_than_the_two_means_allow():
    rng = np.random.default_rng(0)
    base = rng.random((1, 300))
    arm = base + rng.normal(0.02, 0.01, (1, 300))
    found = two_level_difference(arm, base, 0)
    alone = two_level_mean(arm, 0)
    assert found.low > 0.018
    assert found.high - found.low < (alone.high - alone.low) / 10


def test_luck_that_a_pair_of_runs_shares_does_not_widen_their_difference():
    rng = np.random.default_rng(0)
    luck, problems = np.array([[-0.3], [0.0], [0.3]]), rng.random((1, 100)) / 4
    base = 0.4 + luck + problems
    arm = base + rng.normal(0.05, 0.02, (3, 100))
    paired, independent = (two_level_difference(arm, base, 0, (-1, 1), paired_runs=pairs) for pairs in (True, False))
    assert paired.estimate == pytest.approx(independent.estimate) == pytest.approx(0.05, abs=0.01)
    assert paired.low > 0.04 and independent.low < -0.5
    alone = two_level_mean(arm - base, 0, (-1, 1, False))
    assert (paired.low, paired.high) == (alone.low, alone.high)


def test_one_pair_of_runs_is_one_run_each_and_pairs_need_as_many_on_both_sides():
    base, arm = np.zeros((1, 30)), np.ones((1, 30)) * (np.arange(30) < 7)
    plain = two_level_difference(arm, base, 0, (-1, 1))
    assert two_level_difference(arm, base, 0, (-1, 1), paired_runs=True) == plain
    with pytest.raises(ValueError, match="as many runs on both sides, got 2 and 1"):
        two_level_difference(np.vstack([arm, arm]), base, 0, paired_runs=True)


def test_run_variance_of_two_shifted_runs_by_hand():
    problems = np.array([0.0, 0.5, 1.0])
    shifted = np.stack([problems, problems + 0.2])
    # no residual: the variance of the mean is that of the runs, 0.02, over 2 runs
    assert run_variance(shifted) == pytest.approx(0.01)


def test_run_variance_estimates_the_true_variance_between_runs():
    rng = np.random.default_rng(5)
    found = [
        run_variance(rng.normal(0, 0.1, (4, 1)) + rng.normal(0, 0.3, 200) + rng.normal(0, 0.3, (4, 200)))
        for _ in range(3000)
    ]
    assert np.mean(found) == pytest.approx(0.01 / 4, rel=0.05)


@pytest.mark.parametrize("bad", [[], [np.nan, 1.0], [np.inf, 0.0]])
def test_values_that_are_missing_or_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match=r"non-empty|not finite"):
        bootstrap_mean(np.array(bad), 0)


def test_a_difference_over_unequal_numbers_of_problems_is_refused():
    with pytest.raises(ValueError, match="same problems on both sides, got 3 and 2"):
        two_level_difference(np.zeros((1, 3)), np.zeros((1, 2)), 0)
