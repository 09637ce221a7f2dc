"""Leave-one-out advantages against numbers worked by hand and a brute-force reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipe.hdpo.algorithm.advantage import compute_hdpo_advantage, leave_one_out_advantage


def test_one_success_of_four_by_hand() -> None:
    """Others of the success: 0, 0, 0: mean 0, std 0, so no division. Others of a failure: 1, 0, 0: mean 1/3,
    variance ((2/3)^2 + 2 (1/3)^2) / 2 = 1/3."""
    got = leave_one_out_advantage(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    failure = -(1 / 3) / math.sqrt(1 / 3)
    torch.testing.assert_close(got, torch.tensor([1.0, failure, failure, failure]))


def test_a_reward_counts_wherever_its_response_ends() -> None:
    rewards = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    advantages, _ = compute_hdpo_advantage(rewards, torch.ones(4, 3), index=np.array(["a"] * 4))
    assert advantages[:, 0].tolist() == pytest.approx([1.0] + [-1 / math.sqrt(3)] * 3)


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
        floor = (max(rewards) - min(rewards)) / (2 * math.sqrt(len(rewards) - 1))
        std = max(others.std(ddof=1), floor) if len(set(others.tolist())) > 1 else 1.0
        assert got[i].item() == pytest.approx((reward - others.mean()) / std, abs=1e-12)


def test_groups_of_one_and_two_have_no_standard_deviation() -> None:
    assert leave_one_out_advantage(torch.tensor([1.0])).tolist() == [0.0]
    assert leave_one_out_advantage(torch.tensor([1.0, 0.0])).tolist() == [1.0, -1.0]


def test_a_rejected_rollout_counts_in_its_group_as_in_verls_grpo_and_padding_in_none() -> None:
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [0, 0], [0, 0], [0, 0]])
    uids = ["a", "a", "a", "a", "pad", "pad"]
    advantages, returns = compute_hdpo_advantage(rewards, mask, index=uids)
    expected = leave_one_out_advantage(torch.tensor([1.0, 0.0, 0.0, 1.0]))
    torch.testing.assert_close(advantages[:3, 0], expected[:3])
    assert not advantages[3:].any()
    assert advantages[2].tolist() == [expected[2].item(), 0.0]
    assert returns is advantages


@given(st.lists(st.integers(-500, 500).map(lambda n: n / 100), min_size=3, max_size=16))
def test_no_advantage_is_above_twice_the_root_of_the_other_rollouts(rewards: list[float]) -> None:
    got = leave_one_out_advantage(torch.tensor(rewards, dtype=torch.float64))
    spread = max(rewards) - min(rewards)
    assert got.abs().max() <= max(2 * math.sqrt(len(rewards) - 1), spread) * (1 + 1e-9)


def test_nearly_equal_other_rewards_do_not_blow_an_advantage_up() -> None:
    """A penalty of a thousandth on one of fourteen failures: s of the success is 0.00026, and (1 + 1) / s is 7,746."""
    rewards = torch.tensor([1.0] + [-1.0] * 14 + [-1.001], dtype=torch.float64)
    got = leave_one_out_advantage(rewards)
    assert got[0].item() == pytest.approx(2 * math.sqrt(15), rel=1e-3)


@given(st.integers(3, 32), st.data())
def test_rewards_of_two_values_never_meet_the_floor(size: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, size))
    rewards = torch.tensor([1.0] * successes + [0.0] * (size - successes))
    for i, advantage in enumerate(leave_one_out_advantage(rewards).tolist()):
        others = torch.cat([rewards[:i], rewards[i + 1 :]])
        std = others.std().item() if 0 < others.sum() < size - 1 else 1.0
        assert advantage == pytest.approx((rewards[i].item() - others.mean().item()) / std, abs=1e-5)


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
