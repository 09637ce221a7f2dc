"""Clip and weights of tokens: worked by hand, at their ends, against the definition, and through our own backward."""

from __future__ import annotations

import math

import pytest
import torch

from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.reference import Controls, Kept, hdpo_loss
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, teacher_topk
from recipe.hdpo.algorithm.token_controls import (
    clipped,
    entropy_weight,
    largest_jsd,
    reliance_weight,
    saturated,
    teacher_entropy,
)

LENGTHS = [3, 1, 4]
CONTROLS = {
    "clip": Controls(clip=0.1),
    "entropy": Controls(entropy_damping=0.7),
    "reliance": Controls(reliance_damping=0.4),
    "all": Controls(clip=0.1, entropy_damping=0.7, reliance_damping=0.4),
}


def _case(seed: int, vocabulary: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student's and teacher's logits of 8 tokens, float64, and the tokens."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2.0 * torch.randn(8, vocabulary, generator=generator, dtype=torch.float64) for _ in "st")
    return student.requires_grad_(), teacher, torch.randint(vocabulary, (8,), generator=generator)


def _controlled(
    student: torch.Tensor, teacher: TeacherTopK, teacher_log_probs: torch.Tensor, ids: torch.Tensor, controls: Controls
) -> torch.Tensor:
    """The fast way, (8,)."""
    per_token = topk_divergence(student, teacher, torch.arange(8), chunk_size=3).per_token
    log_q = student.detach().log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    weight = entropy_weight(teacher.log_probs, controls.entropy_damping)
    weight = weight * reliance_weight(log_q, teacher_log_probs, LENGTHS, controls.reliance_damping)
    return clipped(per_token, controls.clip) * weight


def test_the_entropy_counts_the_rest_as_one_event_by_hand() -> None:
    """Top-2 of (1/2, 1/4, 1/8, 1/8): events 1/2, 1/4 and 1/4, so 1/2 ln 2 + 1/2 ln 4 = 1.5 ln 2."""
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64).log()
    assert teacher_entropy(teacher_topk(logits, 2).log_probs).item() == pytest.approx(1.5 * math.log(2))
    assert teacher_entropy(teacher_topk(logits, None).log_probs).item() == pytest.approx(1.75 * math.log(2))
    weight = entropy_weight(teacher_topk(logits, 2).log_probs, 2.0)
    assert weight.item() == pytest.approx(2**-3)


def test_the_entropy_of_the_top_k_is_a_lower_bound_that_grows_with_k() -> None:
    logits = _case(1)[1]
    entropies = torch.stack([teacher_entropy(teacher_topk(logits, k).log_probs) for k in range(1, 10)])
    assert (entropies.diff(dim=0) >= -1e-12).all()
    torch.testing.assert_close(entropies[-1], torch.distributions.Categorical(logits=logits).entropy())


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.8])
def test_a_saturated_token_is_one_near_the_largest_divergence(beta: float) -> None:
    """Two tokens: the teacher is sure of the first, and the student of the second, of neither, and of the first."""
    teacher = TeacherTopK(ids=torch.zeros(3, 1, dtype=torch.int64), log_probs=torch.zeros(3, 1))
    student = torch.tensor([[-30.0, 0.0], [0.0, 0.0], [0.0, -30.0]])
    found = topk_divergence(student, teacher, torch.arange(3), beta=beta).per_token
    assert found[0].item() == pytest.approx(largest_jsd(beta), rel=1e-5)
    assert saturated(found, beta).tolist() == [True, False, False]
    assert largest_jsd(0.5) == pytest.approx(math.log(2))


def test_a_certain_teacher_weighs_1_and_masked_tokens_add_no_nan() -> None:
    log_probs = torch.tensor([[0.0, -torch.inf], [math.log(0.5), math.log(0.5)]])
    assert entropy_weight(log_probs, 1.0).tolist() == pytest.approx([1.0, 0.5])


def test_reliance_is_a_mean_over_the_trajectory_and_never_raises_a_weight_by_hand() -> None:
    """First: means of (-1, -2, -3) = -2, so exp(-0.5 * 2). Second: +4, so 1. Third: -0.5, so exp(-0.25)."""
    student = torch.tensor([-2.0, -4.0, -6.0, -1.0, -1.0, -1.0, -2.0, -2.0])
    teacher = torch.tensor([-1.0, -2.0, -3.0, -5.0, -1.0, -1.0, -1.0, -1.0])
    found = reliance_weight(student, teacher, LENGTHS, 0.5)
    assert found.tolist() == pytest.approx([math.exp(-1.0)] * 3 + [1.0] + [math.exp(-0.25)] * 4)
    assert reliance_weight(student[:0], teacher[:0], [], 0.5).tolist() == []


def test_damping_of_0_is_a_weight_of_exactly_1_and_a_large_one_leaves_only_what_is_certain_or_not_relied_on() -> None:
    top = teacher_topk(_case(2)[1], 4)
    assert (entropy_weight(top.log_probs, 0.0) == 1.0).all()
    assert entropy_weight(top.log_probs, 1e6).max() == 0.0
    gaps = torch.tensor([-1.0] * 3 + [0.0] + [1.0] * 4)
    assert reliance_weight(gaps, torch.zeros(8), LENGTHS, 0.0).tolist() == [1.0] * 8
    assert reliance_weight(gaps, torch.zeros(8), LENGTHS, 1e6).tolist() == [0.0] * 3 + [1.0] * 5


def test_no_clip_is_the_divergence_itself_and_above_the_clip_there_is_no_gradient() -> None:
    student, teacher, _ = _case(3)
    per_token = topk_divergence(student, teacher_topk(teacher, 4), torch.arange(8)).per_token
    assert clipped(per_token, None) is per_token
    assert torch.equal(clipped(per_token, math.log(2)), per_token)
    bound = float(per_token.detach().median())
    total = clipped(per_token, bound).sum()
    gradient = torch.autograd.grad(total, student)[0]
    above = per_token.detach() > bound
    assert above.any() and not above.all()
    assert not gradient[above].any() and (gradient[~above].abs().sum(-1) > 0).all()
    assert float(total.detach()) == pytest.approx(float(per_token.detach()[~above].sum()) + bound * int(above.sum()))


@pytest.mark.parametrize("controls", CONTROLS.values(), ids=CONTROLS.keys())
@pytest.mark.parametrize("k", [1, 4, 9])
def test_value_and_gradient_are_those_of_the_definition_divided_by_the_number_of_tokens(
    k: int, controls: Controls
) -> None:
    student, teacher, ids = _case(4)
    log_p = teacher.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    fast = _controlled(student, teacher_topk(teacher, k), log_p, ids, controls).sum() / 8
    parts = [tensor.split(LENGTHS) for tensor in (student, teacher, ids)]
    kept = [Kept(s, t, i.tolist()) for s, t, i in zip(*parts, strict=True)]
    slow = hdpo_loss([], kept, coef=1.0, topk=k, controls=controls).jsd
    torch.testing.assert_close(fast, slow)
    [fast_gradient], [slow_gradient] = (torch.autograd.grad(value, student) for value in (fast, slow))
    torch.testing.assert_close(fast_gradient, slow_gradient)
    plain = hdpo_loss([], kept, coef=1.0, topk=k).jsd
    assert slow < 0.95 * plain or k == 1


@pytest.mark.parametrize("kind", ["jsd", "forward_kl", "reverse_kl"])
def test_gradcheck_of_a_clipped_and_weighted_sum_in_float64(kind) -> None:
    """With weights held still, as the loss holds them."""
    student, teacher, _ = _case(5)
    top = teacher_topk(teacher, 3)
    weight = entropy_weight(top.log_probs, 0.7)

    def controlled(logits: torch.Tensor) -> torch.Tensor:
        per_token = topk_divergence(logits, top, torch.arange(8), kind=kind, chunk_size=3).per_token
        return clipped(per_token, 0.3) * weight

    assert torch.autograd.gradcheck(controlled, student)
    assert 0 < int((controlled(student) >= 0.3 * weight - 1e-12).sum()) < 8
