"""p-values of paired differences: by enumeration, and by how often they are small where nothing differs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from recipe.hdpo.evaluation.pvalues import paired_p_value, sign_flip_p_value


@pytest.mark.parametrize("seed", range(5))
def test_the_sign_flip_p_value_is_the_share_of_sign_patterns(seed):
    d = np.random.default_rng(seed).normal(0.3, 1.0, 9)
    means = [abs(np.mean(d * signs)) for signs in product((-1, 1), repeat=9)]
    expected = np.mean([m >= abs(d.mean()) - 1e-12 for m in means])
    assert sign_flip_p_value(d, 0) == pytest.approx(expected)


def test_three_wins_of_one_size_have_p_one_quarter():
    assert sign_flip_p_value(np.array([1.0, 1.0, 1.0]), 0) == pytest.approx(2 / 8)


def test_tied_problems_leave_the_p_value_unchanged_and_all_ties_give_one():
    d = np.array([0.5, 0.25, -0.125, 1.0])
    assert sign_flip_p_value(np.r_[d, np.zeros(40)], 0) == sign_flip_p_value(d, 0)
    assert sign_flip_p_value(np.zeros(5), 0) == 1.0
    assert sign_flip_p_value(np.array([0.0, 0.4]), 0) == 1.0


def test_under_the_null_p_falls_below_5_percent_about_5_percent_of_the_time(few_resamples):
    rng = np.random.default_rng(2)
    p = np.array([sign_flip_p_value(rng.normal(0, 1, 30), i) for i in range(1000)])
    assert 0.03 <= (p < 0.05).mean() <= 0.07


def test_a_clear_difference_on_many_problems_has_a_small_p_value_that_is_not_zero():
    p = sign_flip_p_value(np.full(200, 0.1), 0)
    assert 0 < p < 0.001


@pytest.mark.parametrize("bad", [[], [np.nan, 1.0], [np.inf, 0.0]])
def test_values_that_are_missing_or_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match=r"non-empty|not finite"):
        sign_flip_p_value(np.array(bad), 0)


def test_one_run_a_side_is_the_sign_flip_test():
    rng = np.random.default_rng(0)
    a, b = rng.random((1, 30)), rng.random((1, 30))
    assert paired_p_value(a, b, 5) == sign_flip_p_value(a[0] - b[0], 5)


@pytest.mark.parametrize("run_sd", [0.0, 0.035, 0.09])
@pytest.mark.parametrize("runs", [2, 3, 5])
def test_two_equal_methods_rarely_have_a_small_p_value_however_their_runs_differ(few_resamples, runs, run_sd):
    rng = np.random.default_rng(3)

    def arm(problem):
        return rng.normal(0, run_sd, (runs, 1)) + problem + rng.normal(0, 0.2, (runs, 100))

    problems = [rng.normal(0, 0.4, 100) for _ in range(300)]
    p = np.array([paired_p_value(arm(problem), arm(problem), i) for i, problem in enumerate(problems)])
    assert (p < 0.05).mean() <= 0.08


def test_runs_that_all_differ_by_more_than_their_spread_have_a_small_p_value():
    rng = np.random.default_rng(4)
    problem = rng.normal(0, 0.4, 200)
    a, b = (shift + rng.normal(0, 0.01, (3, 1)) + problem + rng.normal(0, 0.2, (3, 200)) for shift in (0.2, 0.0))
    assert paired_p_value(a, b, 0) < 0.02


def test_the_luck_of_the_runs_makes_p_larger_than_it_is_given_the_runs():
    rng = np.random.default_rng(5)
    problem = rng.normal(0, 0.4, 200)
    a, b = (np.array([[s], [0.0], [-s]]) + shift + problem for s, shift in ((0.1, 0.05), (0.1, 0.0)))
    a = a + rng.normal(0, 0.05, a.shape)
    assert sign_flip_p_value(a.mean(axis=0) - b.mean(axis=0), 0) < 0.001
    assert paired_p_value(a, b, 0) > 0.1


def test_equal_arms_have_p_one_whatever_their_runs_do():
    runs = np.random.default_rng(6).random((3, 1)) + np.zeros((3, 20))
    assert paired_p_value(runs, runs, 0) == 1.0
