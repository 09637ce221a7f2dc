"""pass@k and maj@k against enumeration, hand-worked numbers and exact identities."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.hdpo.evaluation.passk import maj_at_k, pass_at_k, powers_of_two


def test_one_correct_of_four_passes_half_of_the_pairs():
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)  # 3 of the 6 pairs hold the correct one


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n):
    for c in range(n + 1):
        correct = [i < c for i in range(n)]
        for k in range(1, n + 1):
            subsets = list(combinations(correct, k))
            share = sum(any(s) for s in subsets) / len(subsets)
            assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("p", [0.003, 0.2, 0.9])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (8, 4), (16, 16), (64, 8)])
def test_pass_at_k_is_unbiased_for_k_fresh_samples(n, k, p):
    c = np.arange(n + 1)
    probability = np.array([comb(n, int(i)) * p**i * (1 - p) ** (n - i) for i in c])
    assert probability @ pass_at_k(n, c, k) == pytest.approx(1 - (1 - p) ** k, rel=1e-10)


def test_pass_at_k_stays_exact_where_the_binomials_overflow():
    n, k = 5000, 2500
    for c in (1, 3, 2400):
        exact = 1 - Fraction(comb(n - c, k), comb(n, k))
        assert pass_at_k(n, c, k) == pytest.approx(float(exact), rel=1e-12)


def test_pass_at_k_works_on_many_problems_with_their_own_n():
    values = pass_at_k(np.array([2, 4, 8]), np.array([0, 1, 8]), 2)
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0])


@pytest.mark.parametrize("k", [0, 5, -1])
def test_k_outside_1_to_n_is_refused_with_the_way_out(k):
    with pytest.raises(ValueError, match=r"k=.*n=4.*--n"):
        pass_at_k(4, 1, k)
    with pytest.raises(ValueError, match=r"k=.*n=4.*--n"):
        maj_at_k(["a"] * 4, [True] * 4, k)


@pytest.mark.parametrize("c", [-1, 5])
def test_impossible_counts_of_correct_samples_are_refused(c):
    with pytest.raises(ValueError, match="more correct samples than samples"):
        pass_at_k(np.array([4, 4]), np.array([1, c]), 2)


def _maj_by_enumeration(answers, correct, k):
    total = 0.0
    subsets = list(combinations(range(len(answers)), k))
    for subset in subsets:
        votes: dict[str, int] = {}
        for i in subset:
            if answers[i]:
                votes[answers[i]] = votes.get(answers[i], 0) + 1
        if votes:
            winners = [a for a, v in votes.items() if v == max(votes.values())]
            shares = [np.mean([correct[j] for j in range(len(answers)) if answers[j] == a]) for a in winners]
            total += float(np.mean(shares))
    return total / len(subsets)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["7", "8", "9", "", None]), st.booleans()), min_size=1, max_size=8), st.data()
)
def test_maj_at_k_is_the_mean_over_all_subsets(samples, data):
    answers, correct = [a for a, _ in samples], [c for _, c in samples]
    k = data.draw(st.integers(1, len(samples)))
    assert maj_at_k(answers, correct, k) == pytest.approx(_maj_by_enumeration(answers, correct, k), abs=1e-12)


def test_a_tie_of_right_and_wrong_counts_half():
    assert maj_at_k(["7", "8"], [True, False], 2) == pytest.approx(0.5)


def test_two_right_and_one_wrong_answer_at_k_2():
    # subsets: {7,7} -> 1, {7,8} twice -> 1/2 each
    assert maj_at_k(["7", "7", "8"], [True, True, False], 2) == pytest.approx(2 / 3)


def test_a_sample_without_an_answer_does_not_vote():
    assert maj_at_k(["7", None, None], [True, False, False], 3) == 1.0
    assert maj_at_k([None, ""], [False, False], 2) == 0.0


def test_a_large_majority_vote_is_certain_and_a_large_minority_hopeless():
    answers = ["7"] * 140 + ["8"] * 60
    assert maj_at_k(answers, [a == "7" for a in answers], 101) > 0.999
    assert maj_at_k(answers, [a == "8" for a in answers], 101) < 0.001


def test_maj_at_k_refuses_unequal_lengths_and_too_many_samples():
    with pytest.raises(ValueError, match="2 answers but 1 scores"):
        maj_at_k(["7", "8"], [True], 1)
    with pytest.raises(ValueError, match="at most 1000"):
        maj_at_k(["7"] * 1001, [True] * 1001, 2)


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4]), (8, [1, 2, 4, 8])])
def test_powers_of_two_end_at_or_below_n(n, expected):
    assert powers_of_two(n) == expected


@pytest.mark.parametrize("right", range(6))
def test_a_vote_of_two_is_right_as_often_as_one_voter(right):
    answers = ["7"] * right + ["8", "9", "8", "5", "4"][right:]
    correct = [a == "7" for a in answers]
    assert maj_at_k(answers, correct, 2) == pytest.approx(maj_at_k(answers, correct, 1)) == pytest.approx(right / 5)
