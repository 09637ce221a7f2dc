"""Leave-one-out advantages against numbers worked by hand and a brute-force reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipe.hdpo.advantage import compute_hdpo_advantage, leave_one_out_advantage


def test_one_success_of_four_by_hand() -> None:
    """Others of the success: 0, 0, 0: mean 0, std 0, so no division. Others of a failure: 1, 0, 0: mean 1/3,
    variance ((2/3)^2 + 2 (1/3)^2) / 2 = 1/3."""
    got = leave_one_out_advantage(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    failure = -(1 / 3) / math.sqrt(1 / 3)
    torch.testing.assert_close(got, torch.tensor([1.0, failure, failure, failure]))


def test_without_normalisation_only_the_baseline_is_subtracted() -> None:
    got = leave_one_out_advantage(torch.tensor([1.0, 0.0, 0.0, 0.0]), normalize=False)
    torch.testing.assert_close(got, torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))


@given(st.sampled_from([0.0, 0.1, 0.7, 1.0]), st.integers(1, 33))
def test_equal_rewards_give_exactly_zero(reward: float, size: int) -> None:
    assert torch.equal(leave_one_out_advantage(torch.full((size,), reward)), torch.zeros(size))


@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=3, max_size=12))
def test_matches_numpy_rollout_by_rollout(rewards: list[float]) -> None:
    got = leave_one_out_advantage(torch.tensor(rewards, dtype=torch.float64))
    for i, reward in enumerate(rewards):
        others = np.delete(np.array(rewards), i)
        std = others.std(ddof=1) if len(set(others.tolist())) > 1 else 1.0
        assert got[i].item() == pytest.approx((reward - others.mean()) / std, abs=1e-12)


def test_groups_of_one_and_two_have_no_standard_deviation() -> None:
    assert leave_one_out_advantage(torch.tensor([1.0])).tolist() == [0.0]
    assert leave_one_out_advantage(torch.tensor([1.0, 0.0])).tolist() == [1.0, -1.0]


def test_rows_without_response_tokens_enter_no_statistics() -> None:
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 9.0]])
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [0, 0]])
    advantages, returns = compute_hdpo_advantage(rewards, mask, index=["a", "a", "a", "a"])
    expected = leave_one_out_advantage(torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(advantages[:3, 0], expected)
    assert advantages[3].tolist() == [0.0, 0.0]
    assert advantages[2].tolist() == [expected[2].item(), 0.0]
    assert returns is advantages


def test_groups_are_joined_by_uid_in_any_order() -> None:
    rewards = torch.tensor([[1.0], [0.0], [0.0], [1.0], [0.0], [1.0]])
    mask = torch.ones(6, 1)
    uids = ["a", "b", "a", "b", "a", "b"]
    mixed, _ = compute_hdpo_advantage(rewards, mask, index=uids)
    order = sorted(range(6), key=lambda i: uids[i])
    apart, _ = compute_hdpo_advantage(rewards[order], mask, index=[uids[i] for i in order])
    torch.testing.assert_close(mixed[order], apart)


def test_the_algorithm_config_switches_normalisation_off() -> None:
    rewards, mask = torch.tensor([[1.0], [0.0], [0.0], [0.0]]), torch.ones(4, 1)
    config = {"norm_adv_by_std_in_grpo": False}
    advantages, _ = compute_hdpo_advantage(rewards, mask, index=["a"] * 4, config=config)
    torch.testing.assert_close(advantages[:, 0], torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))
