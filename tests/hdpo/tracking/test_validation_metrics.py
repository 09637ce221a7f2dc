"""pass@k and greedy accuracy of validation samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recipe.hdpo.tracking.validation_metrics import greedy_accuracy, validation_passk


def test_two_prompts_of_four_samples_by_hand():
    uids = ["a", "b", "a", "b", "a", "b", "a", "b"]
    scores = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]  # a: 1 of 4, b: 0 of 4
    found = validation_passk({("s", "a"): 4, ("s", "b"): 4}, uids, scores)
    assert found == pytest.approx({"val-hdpo/s/pass@1": 0.125, "val-hdpo/s/pass@2": 0.25, "val-hdpo/s/pass@4": 0.5})


def test_data_sources_are_kept_apart():
    expected = {("x", "a"): 1, ("y", "b"): 1}
    found = validation_passk(expected, ["a", "b"], [1.0, 0.0]) | greedy_accuracy(expected, ["a", "b"], [0.0, 1.0])
    assert found == {
        "val-hdpo/x/pass@1": 1.0,
        "val-hdpo/y/pass@1": 0.0,
        "val-hdpo/x/greedy": 0.0,
        "val-hdpo/y/greedy": 1.0,
    }


def test_a_score_counts_from_the_success_reward_on_and_nan_never_does():
    expected = {("s", uid): 1 for uid in "abcd"}
    scores = [0.5, 0.7, math.nan, 0.4]
    assert validation_passk(expected, list("abcd"), scores, success_reward=0.5) == {"val-hdpo/s/pass@1": 0.5}
    assert greedy_accuracy(expected, list("abcd"), scores, success_reward=0.5) == {"val-hdpo/s/greedy": 0.5}


def test_scores_that_were_summed_in_float32_reach_the_success_reward():
    carried = float(np.float32(0.9))
    assert carried < 0.9
    assert validation_passk({("s", "a"): 1}, ["a"], [carried], success_reward=0.9) == {"val-hdpo/s/pass@1": 1.0}


def test_a_lost_sample_counts_as_a_failure_and_is_reported():
    found = validation_passk({("s", "a"): 2, ("s", "b"): 2}, ["a", "b", "b"], [1.0, 1.0, 1.0])
    assert found["val-hdpo/s/pass@1"] == pytest.approx(0.75)
    assert found["val-hdpo/s/lost_samples"] == 1.0


def test_a_prompt_whose_samples_were_all_lost_counts_as_failed():
    expected = {("s", "a"): 2, ("s", "b"): 2, ("gone", "c"): 2}
    found = validation_passk(expected, ["a", "a"], [1.0, 1.0])
    assert found["val-hdpo/s/pass@1"] == found["val-hdpo/s/pass@2"] == 0.5
    assert found["val-hdpo/s/lost_samples"] == 2.0
    assert found["val-hdpo/gone/pass@1"] == 0.0
    assert greedy_accuracy(expected, ["a", "a"], [1.0, 1.0]) == {"val-hdpo/s/greedy": 0.5, "val-hdpo/gone/greedy": 0.0}


def test_k_runs_over_powers_of_two_up_to_the_fewest_samples_of_a_prompt():
    found = validation_passk({("s", "a"): 6, ("s", "b"): 9}, ["a"] * 6 + ["b"] * 9, [0.0] * 5 + [1.0] + [0.0] * 9)
    assert list(found) == [f"val-hdpo/s/pass@{k}" for k in (1, 2, 4)]
    assert found["val-hdpo/s/pass@4"] == pytest.approx(4 / 6 / 2)


@pytest.mark.parametrize(
    ("uids", "scores", "message"),
    [
        (["a"], [1.0, 0.0], "zip"),
        (["b"], [1.0], "sample of prompt b, which was not asked for"),
        (["a", "a", "a"], [1.0, 0.0, 0.0], "3 samples of prompt a, 2 were asked for"),
    ],
)
def test_samples_that_do_not_fit_are_refused(uids, scores, message):
    with pytest.raises(ValueError, match=message):
        validation_passk({("s", "a"): 2}, uids, scores)
