"""Unbiased pass@k and exact maj@k from n samples per problem.

    pass@k = 1 - C(n - c, k) / C(n, k)                      n samples, c of them correct
           = 1 - prod_{i=0}^{k-1} (n - c - i) / (n - i)     the form computed here: every factor is in [0, 1]

    maj@k  = E[ the plurality answer of k of the n samples is correct ]

Both are the expectation over all C(n, k) subsets drawn **without** replacement, so they are unbiased for k
fresh samples (pass@k: Chen et al. 2021, arXiv 2107.03374, eq. 1). Drawing with replacement is not: at k = n
it never sees all samples, and it underestimates pass@k.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np

MAX_SAMPLES = 1000  # C(1000, 500) = 2.7e299 is still a float64


def pass_at_k(n: np.ndarray | int, c: np.ndarray | int, k: int) -> np.ndarray:
    """Unbiased pass@k of every problem.

    Args:
        n: samples per problem, shape (P,) or a scalar.
        c: correct samples per problem, 0 <= c <= n, shape (P,) or a scalar.
        k: subset size, 1 <= k <= every n.

    Returns:
        float64, shape (P,) (a scalar array for scalar input), in [0, 1].

    Raises:
        ValueError: k outside 1..min(n), or c outside 0..n.
    """
    n_P, c_P = np.broadcast_arrays(np.asarray(n, dtype=np.int64), np.asarray(c, dtype=np.int64))
    _check_k(k, int(n_P.min()) if n_P.size else k)
    bad = (c_P < 0) | (c_P > n_P)
    if bad.any():
        raise ValueError(
            f"pass@k: {int(bad.sum())} problem(s) have more correct samples than samples, or fewer than 0 "
            f"(first: c={c_P[bad].flat[0]}, n={n_P[bad].flat[0]}); count each sample once."
        )
    all_fail_P = np.ones(n_P.shape)
    for i in range(k):
        all_fail_P = all_fail_P * np.maximum(n_P - c_P - i, 0) / (n_P - i)
    return 1.0 - all_fail_P


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool | float], k: int) -> float:
    """Exact expected correctness of the majority vote over k of one problem's n samples.

    Votes are counted by the answer string as given: two spellings of one number are two answers unless the
    reward function returns them in one form. A sample without an answer (``None`` or ``""``) casts no vote; a
    subset without any vote is wrong. **Ties** are broken uniformly at random, computed as an expectation (a
    tie of a right and a wrong answer counts 1/2). An answer scored differently by sample counts its mean.

    No subset is sampled: for every winning vote count v, the number of subsets is summed by dynamic
    programming over the answers (state: votes cast, answers tied at v).

    Args:
        answers: the extracted answers, length n.
        correct: 0/1 (or False/True) per sample, length n.
        k: votes, 1 <= k <= n.

    Returns:
        A probability in [0, 1].

    Raises:
        ValueError: lengths differ, k outside 1..n, or n above 1000 (C(n, k) leaves the range of float64).
    """
    n = len(answers)
    if len(correct) != n:
        raise ValueError(f"maj@k: {n} answers but {len(correct)} scores; pass one score for each answer.")
    _check_k(k, n)
    if n > MAX_SAMPLES:
        raise ValueError(f"maj@k: {n} samples of one problem, at most {MAX_SAMPLES} can be counted; use fewer (--n).")
    votes = Counter(answer for answer in answers if answer)
    rightness = {a: float(np.mean([s for b, s in zip(answers, correct, strict=True) if a == b])) for a in votes}
    if not any(rightness.values()):
        return 0.0
    silent = n - sum(votes.values())
    expected = 0.0
    for v in range(1, min(k, max(votes.values())) + 1):
        wins_U = _winning_weight(votes, rightness, k, v)
        expected += float(sum(comb(silent, k - u) * wins_U[u] / comb(n, k) for u in range(v, k + 1)))
    return min(1.0, expected)


def _winning_weight(votes: Counter, rightness: dict, k: int, v: int) -> np.ndarray:
    """Ways to draw u voting samples whose largest vote is exactly v, weighted by the winner's rightness.

    Returns shape (k + 1,), indexed by u.
    """
    most_ties = k // v
    ways_UT = np.zeros((k + 1, most_ties + 1))
    score_UT = np.zeros((k + 1, most_ties + 1))  # the same, times the sum of the tied answers' rightness
    ways_UT[0, 0] = 1
    for answer, m in votes.items():
        new_ways_UT, new_score_UT = np.zeros_like(ways_UT), np.zeros_like(score_UT)
        for r in range(min(m, v) + 1):
            tied, pick = int(r == v), comb(m, r)
            before = (slice(0, k + 1 - r), slice(0, most_ties + 1 - tied))
            after = (slice(r, k + 1), slice(tied, most_ties + 1))
            new_ways_UT[after] += pick * ways_UT[before]
            new_score_UT[after] += pick * (score_UT[before] + tied * rightness[answer] * ways_UT[before])
        ways_UT, score_UT = new_ways_UT, new_score_UT
    return (score_UT[:, 1:] / np.arange(1, most_ties + 1)).sum(axis=1)


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, ... up to n: the subset sizes that are reported when nobody chose any."""
    return [2**i for i in range(n.bit_length()) if 2**i <= n]


def _check_k(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(
            f"k={k} with n={n} samples per problem: pass@k and maj@k need 1 <= k <= n. "
            f"Draw at least {max(k, 1)} samples per problem (--n), or ask for k <= {n} (--k)."
        )
