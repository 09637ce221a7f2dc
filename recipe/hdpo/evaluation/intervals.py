"""Intervals of means over problems, and over runs and problems.

Problems are the sampling unit: a confidence interval says how much the number would move on other problems of
the same kind. One run's interval therefore knows nothing of the luck of the training seed; several runs do.

    one run       Bayesian bootstrap (Rubin 1981): the problems' weights are drawn from Dirichlet(1, ..., 1). For a
                  metric whose values lie at the ends of its support, like solved or not, half a problem that was
                  never seen is put at the upper end for the upper bound, and at the lower end for the lower one. For
                  0/1 values, c of P solved, the bounds are quantiles of Beta(c, P - c + 1/2) and Beta(c + 1/2, P - c):
                  near Jeffreys's interval and inside Clopper and Pearson's. Without that half problem a bootstrap,
                  BCa or any other, knows nothing of the rare failure that was not drawn, and is too short near
                  0 and 1.
    one run, other metrics  such as a length in tokens, whose values rarely come near their bounds, or a mean
                  without known bounds: BCa bootstrap (Efron 1987; scipy.stats.bootstrap); of a paired difference the
                  outer ends of BCa and of the percentile bootstrap.
    several runs  Y_ij = mu + a_i (run) + b_j (problem) + e_ij. The problem columns are resampled, and to each
                  resample the runs' part is added: t_{S-1} * sqrt(max(0, MS_a - MS_e) / (S P)) for every arm.
                  Resampling 2 to 5 runs themselves covers badly, because so few runs have so few distinct
                  resamples, and because each of the two resamplings counts e_ij once more. Runs that share a seed,
                  and with it the order of the data, can be compared in pairs: Y_ij is then the difference of a pair.
                  Where what a pair does not share is small, so few pairs cover 93 % (three) or 90 % (two).

                  The mean of one arm counts the unseen half problem too. A difference does not: it would be far too
                  long where only samples differ. So it is too short where a handful of problems differ in every run,
                  all one way.

Measured coverage of all of them, and of the bootstrap without the half problem: ``python -m benchmarks.coverage``; its
figures are in ``docs/results/benchmarks/coverage.json``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
UNSEEN = 0.5  # weight, in problems, of the one at the end of the support that was never seen
_BLOCK = 1000  # resamples per array, so that 10,000 resamples of 10,000 problems need no 800 MB
_TAILS = (1.0 - CONFIDENCE) / 2.0, (1.0 + CONFIDENCE) / 2.0


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; low and high are None where too few data leave it unknown."""

    estimate: float
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, Any]:
        """``{"estimate", "low", "high"}``."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


class Support(NamedTuple):
    """What values a metric can have for one problem. A plain pair ``(low, high)`` stands for one with ``at_ends``.

    Attributes:
        low, high: smallest and largest possible value.
        at_ends: values at an end are the rule (solved or not), so that one that was not seen has to be expected. False
            for a length in tokens, which seldom comes near 0 or the limit.
    """

    low: float
    high: float
    at_ends: bool = True

    def difference(self) -> Support:
        """The support of one value minus another."""
        return Support(self.low - self.high, self.high - self.low, self.at_ends)


Bounds = Support | tuple[float, float] | None


def bootstrap_mean(values: np.ndarray, seed: int, support: Bounds = None) -> Interval:
    """Mean over problems with its interval (see the module's docstring).

    A bootstrap of equal values has no width, although 0 of 20 solved does not prove that none ever will be.
    With ``support`` such values get the exact bound instead: P(another value) <= u = 1 - (1 -
    confidence)^(1/P), so the mean lies within [v - u (v - min), v + u (max - v)] (for 0 of P solved that is
    the "rule of three", 3/P).

    Args:
        values: one number per problem, shape (P,), finite.
        seed: of the resampling; the same seed gives the same interval.
        support: the possible values of one problem; None where there are no bounds.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    values_P, bounds = checked(values, 1), _support(support)
    mean = float(values_P.mean())
    if _is_constant(values_P):
        return _constant_interval(mean, len(values_P), bounds)
    if bounds is not None and bounds.at_ends:
        low_R, high_R = _bayesian_means(values_P, bounds, np.random.default_rng(seed))
        return Interval(mean, float(np.quantile(low_R, _TAILS[0])), float(np.quantile(high_R, _TAILS[1])))
    return Interval(mean, *_bootstrap(values_P, seed, "BCa"))


def two_level_mean(values: np.ndarray, seed: int, support: Bounds = None) -> Interval:
    """Mean over runs and problems; the interval covers both (see the module's docstring).

    Args:
        values: shape (S, P): S runs of one arm on the same P problems. S = 1 is :func:`bootstrap_mean`.
        seed: of the resampling.
        support: the possible values of one problem; None where there are no bounds.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    values_SP, bounds = checked(values, 2), _support(support)
    if len(values_SP) == 1:
        return bootstrap_mean(values_SP[0], seed, bounds)
    return _two_level([(1.0, values_SP)], seed, bounds, bounds is not None and bounds.at_ends)


def two_level_difference(
    values_a: np.ndarray, values_b: np.ndarray, seed: int, support: Bounds = None, *, paired_runs: bool = False
) -> Interval:
    """Mean of a minus mean of b, paired by problem.

    Args:
        values_a: shape (S_a, P), columns in the same problem order as b's.
        values_b: shape (S_b, P).
        seed: of the resampling.
        support: the possible **differences** of one problem; None where there are no bounds.
        paired_runs: rows at the same place share a training seed: only what differs within a pair is the runs' luck.
            Otherwise runs of a and of b are independent of each other.

    Raises:
        ValueError: different numbers of problems, or of runs in pairs; no values, or values that are not finite.
    """
    a_SP, b_SP, bounds = checked(values_a, 2), checked(values_b, 2), _support(support)
    if a_SP.shape[1] != b_SP.shape[1]:
        raise ValueError(
            f"A paired difference needs the same problems on both sides, got {a_SP.shape[1]} and {b_SP.shape[1]}."
        )
    if paired_runs and len(a_SP) != len(b_SP):
        raise ValueError(f"Pairs of runs need as many runs on both sides, got {len(a_SP)} and {len(b_SP)}.")
    if paired_runs and len(a_SP) > 1:
        return _two_level([(1.0, a_SP - b_SP)], seed, bounds, unseen=False)
    if not len(a_SP) == len(b_SP) == 1:
        # Differences of means over runs are seldom at an end: no half problem.
        return _two_level([(1.0, a_SP), (-1.0, b_SP)], seed, bounds, unseen=False)
    difference_P = a_SP[0] - b_SP[0]
    found = bootstrap_mean(difference_P, seed, bounds)
    if found.low is None or found.high is None or _is_constant(difference_P) or (bounds is not None and bounds.at_ends):
        return found
    low, high = _bootstrap(difference_P, seed, "percentile")
    return Interval(found.estimate, min(found.low, low), max(found.high, high))


def run_variance(values: np.ndarray) -> float:
    """The runs' part of the variance of the mean: max(0, MS_a - MS_e) / (S P); values of shape (S, P)."""
    runs, problems = values.shape
    if runs < 2 or problems < 2:
        return 0.0
    residual_SP = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    ms_run = problems * float(values.mean(axis=1).var(ddof=1))
    ms_residual = float((residual_SP**2).sum()) / ((runs - 1) * (problems - 1))
    return max(0.0, ms_run - ms_residual) / (runs * problems)


def _two_level(arms: list[tuple[float, np.ndarray]], seed: int, support: Support | None, unseen: bool) -> Interval:
    columns_P = np.sum([sign * values_SP.mean(axis=0) for sign, values_SP in arms], axis=0)
    mean = float(columns_P.mean())
    runs_part = [(len(values_SP), run_variance(values_SP)) for _, values_SP in arms]
    if _is_constant(columns_P) and not any(variance for _, variance in runs_part):
        return _constant_interval(mean, len(columns_P), support)
    rng = np.random.default_rng(seed)
    if unseen and support is not None:
        low_R, high_R = _bayesian_means(columns_P, support, rng)
    else:
        low_R = high_R = np.concatenate([_resampled_means(columns_P, rng, _BLOCK) for _ in range(RESAMPLES // _BLOCK)])
    for runs, variance in runs_part:
        if variance > 0.0:
            luck_R = rng.standard_t(runs - 1, RESAMPLES) * np.sqrt(variance)
            low_R, high_R = low_R + luck_R, high_R + luck_R
    low, high = float(np.quantile(low_R, _TAILS[0])), float(np.quantile(high_R, _TAILS[1]))
    if support is not None:  # with two or three runs t's tails can pass what is possible
        low, high = max(low, support.low), min(high, support.high)
    return Interval(mean, low, high)


def _bayesian_means(values_P: np.ndarray, support: Support, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Means of the Bayesian bootstrap with the unseen half problem at the lower end and at the upper one, each (R,).

    Dirichlet weights are Gamma(1) draws over their sum, and the sum of the draws of m equal values is Gamma(m): drawn
    once for each distinct value.
    """
    distinct_U, counts_U = np.unique(values_P, return_counts=True)
    sum_R, weight_R = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, _BLOCK):
        block = slice(start, start + _BLOCK)
        draws_BU = rng.standard_gamma(counts_U, (min(_BLOCK, RESAMPLES - start), len(distinct_U)))
        sum_R[block], weight_R[block] = draws_BU @ distinct_U, draws_BU.sum(axis=1)
    unseen_R = rng.standard_gamma(UNSEEN, RESAMPLES)
    low_R, high_R = ((sum_R + unseen_R * end) / (weight_R + unseen_R) for end in support[:2])
    return low_R, high_R


def _bootstrap(values_P: np.ndarray, seed: int, method: str) -> tuple[float, float]:
    ends = stats.bootstrap(
        (values_P,), np.mean, n_resamples=RESAMPLES, batch=_BLOCK, method=method, confidence_level=CONFIDENCE, rng=seed
    ).confidence_interval
    return float(ends.low), float(ends.high)


def _resampled_means(values_P: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    return values_P[rng.integers(0, len(values_P), (count, len(values_P)))].mean(axis=1)


def _support(support: Bounds) -> Support | None:
    return None if support is None else Support(*support)


def _is_constant(values_P: np.ndarray) -> bool:
    """Equal up to rounding: means of equal numbers can differ in the last digit, and BCa then divides 0 by 0."""
    return bool(np.ptp(values_P) <= 1e-12 * max(1.0, float(np.abs(values_P).max())))


def _constant_interval(value: float, problems: int, support: Support | None) -> Interval:
    if support is None:
        return Interval(value, None, None) if problems == 1 else Interval(value, value, value)
    other = 1.0 - (1.0 - CONFIDENCE) ** (1.0 / problems)
    return Interval(value, value - other * (value - support.low), value + other * (support.high - value))


def checked(values: np.ndarray, dimensions: int) -> np.ndarray:
    """The values as float64; ValueError if there are none, or some are not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or array.size == 0:
        raise ValueError(f"Need a non-empty array with {dimensions} axis/axes of values, got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{int((~np.isfinite(array)).sum())} of {array.size} values are not finite numbers.")
    return array
