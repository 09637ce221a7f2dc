"""HDPO's whole loss from its definition, one sequence at a time: for reading, and to test everything fast against.

    L      = L_GRPO + lambda * L_JSD
    L_GRPO = (1 / N) sum over rollouts i, sum over tokens t of c(r_it, A_i),     N: tokens of all rollouts
    L_JSD  = (1 / M) sum over kept trajectories, sum over tokens t of w_t min(JSD_k, clip),
                                                                                 M: tokens of all kept trajectories

The tokens of a response are those that the model wrote: of an agent, what a tool or an environment put in between is
context, enters no sum and is not counted.

    r_it = pi(y_t | x, y_<t) / pi_old(y_t | x, y_<t)
    c(r, A) = max(-A r, -A clip(r, 1 - low, 1 + high)), for A < 0 at most -A dual     (verl's dual clip)
    A_i  = (r_i - mean of the other rewards) / their standard deviation, see advantage.py
    JSD_k = 1/2 KL(p~ || m) + 1/2 KL(q || m),   m = (p~ + q) / 2

w_t = exp(-a H_t) exp(b min(Delta, 0)), 1 unless asked for; H_t: the teacher's entropy over its k best tokens and the
rest as one event; Delta: the mean over the trajectory of ln q(y_t) - ln p(y_t). No gradient passes through w_t.

p~ is the teacher's distribution after the privileged prompt, cut to its k most likely tokens and renormalised; q is the
student's after the plain prompt, whole. The teacher has no gradient. A mean over nothing is 0.

Left out: the KL loss, the entropy bonus, other ways to aggregate, other divergences.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class Rollout:
    """A response to the plain prompt. T tokens, V tokens in the vocabulary.

    Example:
        ``Rollout(logits_TV=torch.zeros(1, 2), ids=[1], old_log_probs=[-0.69], advantage=1.0)``

    Attributes:
        logits_TV: the student's logits that predict the response's tokens, shape (T, V).
        ids: the response's T token ids.
        old_log_probs: their T log-probabilities under the policy that sampled them.
        advantage: A_i, one number for the whole response.
        mask: of the T tokens, 1 for those that the model wrote; empty where it wrote all.
    """

    logits_TV: torch.Tensor
    ids: Sequence[int]
    old_log_probs: Sequence[float]
    advantage: float
    mask: Sequence[int] = ()


@dataclass(frozen=True)
class Kept:
    """A privileged response with R = 1, as student and teacher read it: logits at the same T tokens, each (T, V).

    ``ids``, the T token ids, are read for the reliance alone; ``mask`` is as in :class:`Rollout`.

    Example:
        ``Kept(student_TV=torch.zeros(1, 2), teacher_TV=torch.tensor([[0.0, 3.0]]))``
    """

    student_TV: torch.Tensor
    teacher_TV: torch.Tensor
    ids: Sequence[int] = ()
    mask: Sequence[int] = ()

    def own(self) -> Kept:
        """The tokens that the model wrote."""
        if not self.mask:
            return self
        at = [t for t, is_own in enumerate(self.mask) if is_own]
        return Kept(self.student_TV[at], self.teacher_TV[at], [self.ids[t] for t in at if self.ids])


@dataclass(frozen=True)
class Controls:
    """What single tokens may add: ``clip`` bounds JSD_k, ``a`` and ``b`` are those of w_t.

    A trajectory whose Delta is below ``least_reliance`` has w_t = 0.

    Example:
        ``Controls(clip=0.05, entropy_damping=1.0, reliance_damping=3.3)``
    """

    clip: float = float("inf")
    entropy_damping: float = 0.0
    reliance_damping: float = 0.0
    least_reliance: float = float("-inf")


class Loss(NamedTuple):
    """``total = grpo + coef * jsd``, three scalars."""

    total: torch.Tensor
    grpo: torch.Tensor
    jsd: torch.Tensor


def advantages(rewards: Sequence[float]) -> list[float]:
    """A_i of one prompt's K >= 3 rollouts; 0 for all of them where the rewards are equal, as on a cliff."""
    floor = (max(rewards) - min(rewards)) / (2 * (len(rewards) - 1) ** 0.5)
    found = []
    for i, reward in enumerate(rewards):
        others = [*rewards[:i], *rewards[i + 1 :]]
        spread = 0.0 if len(set(others)) == 1 else max(statistics.stdev(others), floor)
        found.append((reward - statistics.fmean(others)) / (spread or 1.0))
    return found


def clipped(ratio: torch.Tensor, advantage: float, low: float, high: float, dual: float) -> torch.Tensor:
    """c(r, A) of one token, a scalar."""
    worse = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high))
    return worse.clamp(max=-advantage * dual) if advantage < 0 else worse


def jsd(student_V: torch.Tensor, teacher_V: torch.Tensor, topk: int) -> torch.Tensor:
    """JSD_k of one position from two rows of logits, in nats."""
    p_V, q_V = teacher_V.detach().softmax(-1), student_V.softmax(-1)
    best = p_V.topk(topk)
    p_V = torch.zeros_like(p_V).scatter(-1, best.indices, best.values / best.values.sum())
    m_V = (p_V + q_V) / 2
    return sum((torch.special.xlogy(a_V, a_V) - torch.special.xlogy(a_V, m_V)).sum() / 2 for a_V in (p_V, q_V))


def weights(row: Kept, topk: int, controls: Controls) -> list[float]:
    """w_t of each token of a trajectory."""
    p_TV, q_TV = row.teacher_TV.detach().softmax(-1), row.student_TV.detach().softmax(-1)
    gaps = [math.log(q_V[token] / p_V[token]) for q_V, p_V, token in zip(q_TV, p_TV, row.ids, strict=False)]
    delta = statistics.fmean(gaps or [0.0])
    reliance = math.exp(controls.reliance_damping * min(delta, 0.0)) if delta >= controls.least_reliance else 0.0
    entropies = []
    for p_V in p_TV:
        best = p_V.topk(topk).values.tolist()
        events = [*best, 1.0 - sum(best)] if topk < len(p_V) else best
        entropies.append(-sum(p * math.log(p) for p in events if p > 0))
    return [math.exp(-controls.entropy_damping * entropy) * reliance for entropy in entropies]


def mean(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of scalars; 0 of none."""
    return torch.stack(list(values)).mean() if values else torch.zeros(())


def hdpo_loss(
    rollouts: Sequence[Rollout],
    kept: Sequence[Kept],
    *,
    coef: float,
    topk: int,
    clip: tuple[float, float, float] = (0.2, 0.2, 3.0),
    controls: Controls = Controls(),
) -> Loss:
    """The loss of one optimizer step.

    Args:
        coef: lambda.
        topk: k.
        clip: low, high and dual of c(r, A).
        controls: of the distilled tokens; by default none.
    """
    policy = [
        clipped((row_V.log_softmax(-1)[token] - old).exp(), rollout.advantage, *clip)
        for rollout in rollouts
        for row_V, token, old, is_own in zip(
            rollout.logits_TV, rollout.ids, rollout.old_log_probs, rollout.mask or [1] * len(rollout.ids), strict=True
        )
        if is_own
    ]
    divergences = [
        weight * jsd(s_V, t_V, topk).clamp(max=controls.clip)
        for row in (trajectory.own() for trajectory in kept)
        for s_V, t_V, weight in zip(row.student_TV, row.teacher_TV, weights(row, topk, controls), strict=True)
    ]
    grpo, distillation = mean(policy), mean(divergences)
    return Loss(grpo + coef * distillation, grpo, distillation)
