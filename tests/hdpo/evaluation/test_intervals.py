"""Intervals: measured coverage on known distributions, exact small cases."""

from __future__ import annotations

import numpy as np
import pytest

from recipe.hdpo.evaluation import intervals
from recipe.hdpo.evaluation.intervals import (
    bootstrap_mean,
    run_variance,
    two_level_difference,
    two_level_mean,
)

SIMULATIONS = 1500


@pytest.fixture
def few_resamples(monkeypatch):
    """1,000 resamples: enough to measure a coverage to about 1 %."""
    monkeypatch.setattr(intervals, "RESAMPLES", 1000)


def _coverage(draw, truth, interval):
    rng = np.random.default_rng(11)
    hits = 0
    for i in range(SIMULATIONS):
        found = interval(draw(rng), i)
        assert found.low <= found.estimate <= found.high
        hits += found.low <= truth <= found.high
    return hits / SIMULATIONS


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng: rng.binomial(1, 0.4, 100).astype(float), 0.4),
        (lambda rng: rng.binomial(8, rng.beta(0.5, 0.8, 100)) / 8, 0.5 / 1.3),
        (lambda rng: rng.normal(5.0, 2.0, 60), 5.0),
    ],
    ids=["greedy accuracy", "pass@1 of 8 samples", "normal"],
)
def test_the_95_percent_interval_of_a_mean_covers_the_truth_in_93_to_97_percent(few_resamples, draw, truth):
    assert 0.93 <= _coverage(draw, truth, bootstrap_mean) <= 0.97


def test_the_95_percent_interval_of_a_paired_difference_covers_the_truth_in_93_to_97_percent(few_resamples):
    def draw(rng):
        p = rng.beta(0.5, 0.8, 100)
        return rng.binomial(8, p)[None] / 8, rng.binomial(8, p**1.1)[None] / 8

    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 0.8, 4_000_000)
    truth = float((p - p**1.1).mean())
    coverage = _coverage(draw, truth, lambda pair, seed: two_level_difference(*pair, seed))
    assert 0.93 <= coverage <= 0.97


@pytest.mark.parametrize(
    "shares",
    [(0.01, 0.01), (0.02, 0.02), (0.05, 0.05), (0.0, 0.04), (0.02, 0.06)],
    ids=lambda s: "lost {}, won {}".format(*s),
)
def test_where_few_problems_differ_the_interval_of_a_difference_covers_the_truth(few_resamples, shares):
    lost, won = shares

    def draw(rng):
        return rng.choice([-1.0, 0.0, 1.0], (1, 100), p=[lost, 1 - lost - won, won]), np.zeros((1, 100))

    coverage = _coverage(draw, won - lost, lambda pair, seed: two_level_difference(*pair, seed, (-1, 1)))
    # Where 2 of 100 problems differ their mean takes few values: no interval covers exactly 95 %, and more is safer.
    assert 0.93 <= coverage <= 0.995


@pytest.mark.parametrize("runs", [3, 5])
@pytest.mark.parametrize("run_sd", [0.0, 0.04], ids=["equal runs", "runs differ"])
def test_the_two_level_interval_covers_the_truth_in_93_to_97_percent(few_resamples, runs, run_sd):
    def draw(rng):
        run, problem = rng.normal(0, run_sd, (runs, 1)), rng.normal(0, 0.4, 100)
        return run + problem + rng.normal(0, 0.2, (runs, 100))

    assert 0.93 <= _coverage(draw, 0.0, two_level_mean) <= 0.97


def test_the_two_level_interval_of_a_difference_covers_the_truth_in_93_to_97_percent(few_resamples):
    def draw(rng):
        problem = rng.normal(0, 0.4, 100)
        return tuple(rng.normal(0, 0.03, (3, 1)) + problem + rng.normal(0, 0.2, (3, 100)) for _ in range(2))

    coverage = _coverage(draw, 0.0, lambda pair, seed: two_level_difference(*pair, seed))
    assert 0.93 <= coverage <= 0.97


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
