"""pass@k of validation samples."""

from __future__ import annotations

import math

import pytest

from recipe.hdpo.evaluation.validation import validation_passk


def test_two_prompts_of_four_samples_by_hand():
    uids = ["a", "b", "a", "b", "a", "b", "a", "b"]
    scores = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]  # a: 1 of 4, b: 0 of 4
    found = validation_passk(uids, scores, 4, data_sources=["s"] * 8)
    assert found == pytest.approx({"val-hdpo/s/pass@1": 0.125, "val-hdpo/s/pass@2": 0.25, "val-hdpo/s/pass@4": 0.5})


def test_data_sources_are_kept_apart_even_when_they_share_a_uid():
    found = validation_passk(["a", "a"], [1.0, 0.0], 1, data_sources=["x", "y"])
    assert found == {"val-hdpo/x/pass@1": 1.0, "val-hdpo/y/pass@1": 0.0}


def test_a_score_counts_from_the_success_reward_on_and_nan_never_does():
    found = validation_passk(["a", "b", "c", "d"], [0.5, 0.7, math.nan, 0.4], 1, success_reward=0.5)
    assert found == {"val-hdpo/all/pass@1": 0.5}


def test_a_lost_sample_counts_as_a_failure_and_is_reported():
    found = validation_passk(["a", "b", "b"], [1.0, 1.0, 1.0], 2)
    assert found["val-hdpo/all/pass@1"] == pytest.approx(0.75)
    assert found["val-hdpo/all/lost_samples"] == 1.0


def test_k_runs_over_powers_of_two_up_to_n():
    found = validation_passk(["a"] * 6, [0.0] * 5 + [1.0], 6)
    assert list(found) == [f"val-hdpo/all/pass@{k}" for k in (1, 2, 4)]
    assert found["val-hdpo/all/pass@4"] == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], [1.0, 0.0], 2), "1 uids, 2 scores"),
        ((["a"], [1.0], 0), "n=0"),
        ((["a", "a", "a"], [1.0, 0.0, 0.0], 2), "uid a of all has 3 samples, more than n=2"),
    ],
)
def test_samples_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        validation_passk(*arguments)
