"""Controls of what single tokens and trajectories add to the distillation term.

    L_JSD = (1 / N_tok) sum_t w_t min(D_t, clip),    w_t = exp(-a H_t) exp(b min(Delta, 0)) [Delta >= least]

    H_t    entropy of the teacher at the token, in nats, over k + 1 events: each of its top-k, and anything else
    Delta  mean over the trajectory of ln q(y_t) - ln p(y_t), of student and teacher: how much less likely the response
           is without the solution (reliance)
    least  of the reliance; 1 without one

N_tok, the number of distilled tokens, divides, whatever the weights are: a weight below 1 takes away and gives nothing
to other tokens, so a token's share depends on nothing else in its mini-batch. Weights lie in [0, 1] and have no
gradient. A token above the clip has none either.

H over k + 1 events needs only the top-k that is there anyway. It is a lower bound of the entropy over the vocabulary,
and equal to it at k = V.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from recipe.hdpo.algorithm.softmax_rows import to_device

# A JSD above this share of its upper bound counts as saturated.
SATURATED = 0.9


def teacher_entropy(log_probs_MK: torch.Tensor) -> torch.Tensor:
    """H of M rows, (M,) in nats, from the log-probabilities of the teacher's top-k under its full softmax, (M, K)."""
    p_MK = log_probs_MK.exp()
    rest_M = (1.0 - p_MK.sum(-1)).clamp(min=0.0)
    return torch.special.entr(p_MK).sum(-1) + torch.special.entr(rest_M)


def entropy_weight(log_probs_MK: torch.Tensor, damping: float) -> torch.Tensor:
    """exp(-a H), (M,); a >= 0."""
    return torch.exp(-damping * teacher_entropy(log_probs_MK))


@torch.no_grad()
def reliance(student_M: torch.Tensor, teacher_M: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Delta of R trajectories, (R,), in nats a token; 0 of one without a token.

    Args:
        student_M, teacher_M, lengths: as for :func:`reliance_weight`; a length may be 0.
    """
    gaps = (student_M - teacher_M).split(list(lengths)) if lengths else ()
    return torch.stack([gap.mean() if len(gap) else gap.sum() for gap in gaps]) if gaps else student_M.new_empty(0)


@torch.no_grad()
def reliance_weight(
    student_M: torch.Tensor, teacher_M: torch.Tensor, lengths: Sequence[int], damping: float
) -> torch.Tensor:
    """exp(b min(Delta, 0)) for each token of several trajectories, one after the other, (M,).

    Args:
        student_M, teacher_M: log-probabilities of the responses' tokens without and with the solution.
        lengths: tokens of each trajectory; their sum is M.
        damping: b >= 0.
    """
    found = reliance(student_M, teacher_M, lengths)
    return torch.exp(damping * found.clamp(max=0.0)).repeat_interleave(_counts(found, lengths))


def clipped(per_token: torch.Tensor, clip: float | None) -> torch.Tensor:
    """min(D, clip); D itself without a clip."""
    return per_token if clip is None else per_token.clamp(max=clip)


def largest_jsd(beta: float) -> float:
    """The generalised JSD of distributions that share no token, its upper bound: the entropy of (beta, 1 - beta)."""
    return -beta * math.log(beta) - (1.0 - beta) * math.log1p(-beta)


def saturated(per_token: torch.Tensor, beta: float) -> torch.Tensor:
    """Which tokens' JSD is close to its upper bound, so that its gradient vanishes (docs/theory.md, section 8)."""
    return per_token.detach() > SATURATED * largest_jsd(beta)


def _counts(like: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    return to_device(torch.tensor(list(lengths), dtype=torch.int64), like.device)
