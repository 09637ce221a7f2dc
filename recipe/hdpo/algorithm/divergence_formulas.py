"""The divergences of a truncated teacher and the full student, and their gradients, as formulas.

    S       ids of the teacher's k most likely tokens
    p~      the teacher's probabilities on S, renormalised to 1 (0 outside S)
    q       the student's full softmax, never renormalised;  q_rest = 1 - sum_S q
    m       beta p~ + (1 - beta) q

    jsd         JSD_k = beta sum_S p~ ln(p~/m) + (1 - beta) (sum_S q ln(q/m) + q_rest ln(1/(1 - beta)))
    forward_kl  KL(p~ || q) = sum_S p~ ln(p~/q)
    reverse_kl  sum_S q ln(q/p) + q_rest ln(q_rest/p_rest),   p not renormalised,  p_rest = 1 - sum_S p

One convention for beta: it is the teacher's weight, in m and in the sum. beta = 1/2 is HDPO's JSD_k: the tail
is 1/2 q_rest ln 2 and the whole lies in [0, ln 2]. JSD_k/beta tends to KL(p~ || q) as beta -> 0, and
JSD_k/(1 - beta) to KL(q || p~) as beta -> 1 where that is finite. The ends are kinds, not values of beta.

JSD_k is exact, not an approximation: outside S the teacher is 0, so m = (1 - beta) q and ln(q/m) is constant.
The reverse KL has no such constant, KL(q || p~) is infinite; so reverse_kl compares the k + 1 events "each id
of S" and "anything else". That is our choice: a lower bound of KL(q || p) by the data-processing inequality,
and equal to it at k = V.

The gradient is written by hand, so that nothing of size N x V is stored. With g_v the derivative in q_v,

    d/dz_v = q_v (g_v - sum_u q_u g_u),    jsd: g_v = (1 - beta) ln(q_v/m_v), so (1 - beta) ln(1/(1 - beta))
                                                outside S

``docs/theory.md`` derives both. Shapes: C rows, K = k ids of S.
"""

import math
from typing import Literal

import torch

DivergenceKind = Literal["jsd", "forward_kl", "reverse_kl"]


def divergence_value(
    kind: DivergenceKind, beta: float, log_p: torch.Tensor, log_q: torch.Tensor, q_rest: torch.Tensor
) -> torch.Tensor:
    """The divergence of C rows, up to rounding below 0; log_p and log_q are (C, K), q_rest is (C,)."""
    q = log_q.exp()
    if kind == "reverse_kl":
        on_s, rest = _reverse_log_ratios(log_p, log_q, q_rest)
        return _times(q, on_s).sum(-1) + q_rest * rest
    log_p = log_p.log_softmax(-1)
    p = log_p.exp()
    if kind == "forward_kl":
        return _times(p, log_p - log_q).sum(-1)
    log_m_over_p = _log_mixture(1.0 - beta, log_q - log_p)
    log_m_over_q = _log_mixture(beta, log_p - log_q)
    on_s = beta * _times(p, log_m_over_p) + (1.0 - beta) * _times(q, log_m_over_q)
    return -on_s.sum(-1) - (1.0 - beta) * math.log1p(-beta) * q_rest


def logit_gradient(
    kind: DivergenceKind, beta: float, log_p: torch.Tensor, log_q: torch.Tensor, q_rest: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient in the logits of S, (C, K), and the factor a of the gradient a q_v outside S, (C, 1)."""
    q = log_q.exp()
    if kind == "forward_kl":
        return q - log_p.softmax(-1), q.new_ones(len(q), 1)
    if kind == "reverse_kl":
        g, g_rest = _reverse_log_ratios(log_p, log_q, q_rest)
    else:
        g = (beta - 1.0) * _log_mixture(beta, log_p.log_softmax(-1) - log_q)
        g_rest = torch.full_like(q_rest, (beta - 1.0) * math.log1p(-beta))
    q_g = _times(q, g)
    mean = (q_g.sum(-1) + q_rest * g_rest)[:, None]
    return q_g - q * mean, g_rest[:, None] - mean


def _log_mixture(weight: float, log_ratio: torch.Tensor) -> torch.Tensor:
    """ln(1 - w + w e^r): ln(m/p) for w = 1 - beta, r = ln(q/p). Exact near r = 0, no overflow far from it."""
    near = torch.log1p(weight * torch.expm1(log_ratio))
    # new_full, since new_tensor would copy a number from the host, and wait for the accelerator.
    far = torch.logaddexp(log_ratio.new_full((), math.log1p(-weight)), log_ratio + math.log(weight))
    return torch.where(log_ratio.abs() < 1.0, near, far)


def _reverse_log_ratios(
    log_p: torch.Tensor, log_q: torch.Tensor, q_rest: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """ln(q/p) on S, (C, K), and of the rest, (C,). Floors keep both finite: p at the smallest normal number,
    and the rests at the machine epsilon, since a difference from 1 below it is only rounding."""
    finfo = torch.finfo(log_p.dtype)
    p_rest = 1.0 - log_p.exp().sum(-1)
    log_rest_ratio = q_rest.clamp(min=finfo.eps).log() - p_rest.clamp(min=finfo.eps).log()
    return log_q - log_p.clamp(min=math.log(finfo.tiny)), log_rest_ratio


def _times(probability: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
    """probability * log_ratio, where 0 times anything is 0, as in the limit of x ln x."""
    return torch.where(probability > 0, probability * log_ratio, 0.0)
