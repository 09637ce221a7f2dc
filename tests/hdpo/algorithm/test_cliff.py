"""When a group of rollouts is a cliff."""

import numpy as np
import pytest

from recipe.hdpo.algorithm.cliff import RolloutGroup, is_success


def _group(*rewards: float, size: int | None = None) -> RolloutGroup:
    return RolloutGroup(uid="u", size=size or len(rewards), rewards=dict(enumerate(rewards)))


def test_all_failed_is_a_cliff_and_one_success_is_not() -> None:
    assert _group(0.0, 0.0, 0.0).is_cliff(1.0)
    assert not _group(0.0, 1.0, 0.0).is_cliff(1.0)
    assert _group(0.0, 1.0, 0.0).is_solved(1.0)


def test_partial_rewards_below_success_are_failures() -> None:
    assert _group(0.5, 0.9).is_cliff(1.0)
    assert not _group(0.5, 0.9).is_cliff(0.9)


def test_the_record_counts_successes_and_rollouts() -> None:
    record = _group(1.0, 0.0, 1.0).record("p", 1.0)
    assert (record.successes, record.size) == (2, 3)


def test_a_lost_rollout_makes_the_group_no_cliff() -> None:
    assert not _group(0.0, 0.0, size=3).is_cliff(1.0)


@pytest.mark.parametrize("unknown", [float("nan"), float("inf"), float("-inf")])
def test_a_reward_that_is_no_finite_number_makes_no_cliff_and_nan_is_never_a_success(unknown: float) -> None:
    assert not is_success(float("nan"), 1.0)
    assert not _group(unknown, 0.0).is_cliff(1.0) and not _group(*[unknown] * 3).is_cliff(1.0)


def test_a_prompt_that_was_cut_is_no_cliff() -> None:
    group = _group(0.0, 0.0)
    group.prompt_was_cut = True
    assert not group.is_cliff(1.0) and group.record("p", 1.0).overlong


@pytest.mark.parametrize("reward", [0.9, 0.1, 0.7, 1 / 3, 1.0])
def test_a_reward_is_a_success_before_and_after_verl_carried_it_in_float32(reward: float) -> None:
    carried = float(np.float32(reward))
    assert is_success(reward, reward) and is_success(carried, reward)
    assert not is_success(reward - 1e-6, reward) and not is_success(float(np.float32(reward - 1e-6)), reward)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_only_the_last_settled_rollout_closes_the_group(size: int) -> None:
    group = RolloutGroup(uid="u", size=size)
    assert [group.settle(float(t)) for t in range(size)] == [False] * (size - 1) + [True]
    assert group.settled_at == size - 1
