"""Leave-one-out group advantage.

For the K rollouts of one prompt with rewards r_1 .. r_K,

    A_i = (r_i - b_i) / s_i,   b_i = mean of the other K - 1 rewards,   s_i = their standard deviation,

with no division where s_i is 0, or where ``norm_adv_by_std_in_grpo`` is false. s_i is the sample standard
deviation (denominator K - 2). On a cliff all r_i are equal, so every A_i is 0: the policy gradient vanishes.

r_i is not among the rewards that s_i is made of, so with graded rewards s_i can be arbitrarily small beside
r_i - b_i. It counts as at least (max r - min r) / (2 sqrt(K - 1)), half of the smallest s_i > 0 that a group of two
values has: so |A_i| <= 2 sqrt(K - 1) wherever it is divided, and 0/1 rewards never meet the floor.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch


def leave_one_out_advantage(rewards_G: torch.Tensor, *, normalize: bool = True) -> torch.Tensor:
    """Advantages of one group, G = K rollouts.

    Args:
        rewards_G: one reward per rollout, shape (G,), floating point.
        normalize: divide by the leave-one-out standard deviation where it is above 0, with the floor above.

    Returns:
        advantages, shape (G,). A group of one has no baseline: its advantage is 0.
    """
    num_rollouts = rewards_G.numel()
    if num_rollouts < 2:
        return torch.zeros_like(rewards_G)
    # (G, G - 1): row i holds the other rewards.
    others = rewards_G.expand(num_rollouts, num_rollouts)[~torch.eye(num_rollouts, dtype=torch.bool)]
    others = others.view(num_rollouts, num_rollouts - 1)
    constant = others.amax(dim=1) == others.amin(dim=1)
    # The mean of equal numbers may differ from them by a rounding error, and a cliff's advantage must be exactly 0.
    advantage_G = rewards_G - torch.where(constant, others[:, 0], others.mean(dim=1))
    if not normalize or num_rollouts < 3:
        return advantage_G
    floor = (rewards_G.max() - rewards_G.min()) / (2 * math.sqrt(num_rollouts - 1))
    std_G = others.std(dim=1, correction=1).clamp(min=floor)
    return torch.where(constant, advantage_G, advantage_G / torch.where(constant, 1.0, std_G))


@torch.no_grad()
def compute_hdpo_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: Sequence[Any],
    config: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The advantage estimator ``hdpo`` for verl's registry.

    Args:
        token_level_rewards: rewards by token, shape (B, T); a rollout's reward is their sum. One that is NaN or
            infinite is unknown: its row has advantage 0 and is in no other row's baseline.
        response_mask: 1 on response tokens, shape (B, T). A row without any (verl's rejection sampling) counts in
            its group, as in verl's GRPO; padding rows have a uid of their own.
        index: the prompt's uid of every row, length B.
        config: verl's ``algorithm`` config; ``norm_adv_by_std_in_grpo`` is read.

    Returns:
        advantages and returns (the same tensor), shape (B, T), 0 outside the response mask.
    """
    normalize = True if config is None else config.get("norm_adv_by_std_in_grpo", True)
    rewards_B = token_level_rewards.sum(dim=-1)
    groups: dict[Any, list[int]] = defaultdict(list)
    known = rewards_B.isfinite().tolist()
    for row, uid in enumerate(index):
        if known[row]:
            groups[uid].append(row)
    advantages_B = torch.zeros_like(rewards_B)
    for rows in groups.values():
        advantages_B[rows] = leave_one_out_advantage(rewards_B[rows], normalize=normalize)
    advantages_BT = advantages_B.unsqueeze(-1) * response_mask
    return advantages_BT, advantages_BT
