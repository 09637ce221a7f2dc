"""p-values of paired differences: problems' signs flipped, and the luck of the runs added where it can be measured."""

from __future__ import annotations

import numpy as np
from scipy import stats

from recipe.hdpo.evaluation import intervals
from recipe.hdpo.evaluation.intervals import checked, run_variance

_BLOCK = 1000


def paired_p_value(values_a: np.ndarray, values_b: np.ndarray, seed: int) -> float:
    """Two-sided p-value of "the mean paired difference is 0".

    One run on both sides: :func:`sign_flip_p_value`, which takes the runs as given. With several runs their part of
    the variance is added to every flipped mean, as in :mod:`recipe.hdpo.evaluation.intervals`: t_{S-1} *
    sqrt(run variance) for every arm. An arm with a single run adds nothing, its luck is not known.

    Args:
        values_a: shape (S_a, P), columns in the same problem order as b's.
        values_b: shape (S_b, P).
        seed: of the random draws.
    """
    a_SP, b_SP = checked(values_a, 2), checked(values_b, 2)
    difference_P = paired_difference(a_SP, b_SP)
    runs_part = [(len(arm_SP), run_variance(arm_SP)) for arm_SP in (a_SP, b_SP)]
    if not any(variance for _, variance in runs_part):
        return sign_flip_p_value(difference_P, seed)
    rng = np.random.default_rng(seed)
    flipped_R = np.concatenate(
        [
            (rng.choice((-1.0, 1.0), (_BLOCK, len(difference_P))) * difference_P).mean(axis=1)
            for _ in range(intervals.RESAMPLES // _BLOCK)
        ]
    )
    for runs, variance in runs_part:
        if variance > 0.0:
            flipped_R = flipped_R + rng.standard_t(runs - 1, len(flipped_R)) * np.sqrt(variance)
    hits = int((np.abs(flipped_R) >= abs(float(difference_P.mean())) - 1e-12).sum())
    return (1 + hits) / (1 + len(flipped_R))


def paired_difference(values_a: np.ndarray, values_b: np.ndarray) -> np.ndarray:
    """Mean over runs of a minus mean over runs of b, shape (P,); equal means that differ in their last digit give 0."""
    difference_P = values_a.mean(axis=0) - values_b.mean(axis=0)
    difference_P[np.abs(difference_P) < 1e-12] = 0.0
    return difference_P


def sign_flip_p_value(differences: np.ndarray, seed: int) -> float:
    """Two-sided permutation p-value of "the mean paired difference is 0": signs flipped by problem.

    Exact where all 2^m sign patterns of the m non-zero differences fit into the resamples; otherwise
    (1 + hits) / (1 + resamples), which is never 0. Zero differences carry no information and leave p
    unchanged.

    Args:
        differences: shape (P,), finite.
        seed: of the random flips.
    """
    nonzero = checked(differences, 1)
    nonzero = nonzero[nonzero != 0.0]
    if len(nonzero) <= 1:
        return 1.0  # both sign patterns of a single one have the same absolute mean
    result = stats.permutation_test(
        (nonzero,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=intervals.RESAMPLES,
        batch=_BLOCK,
        rng=seed,
    )
    return float(result.pvalue)
