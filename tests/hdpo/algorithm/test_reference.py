"""The loss by definition, worked by hand, and the fast formulas against it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipe.hdpo.algorithm import reference
from recipe.hdpo.algorithm.advantage import leave_one_out_advantage
from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.reference import Kept, Rollout, hdpo_loss
from recipe.hdpo.algorithm.teacher_topk import teacher_topk

HALF = math.log(0.5)


def logits(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_both_terms_by_hand_on_two_tokens() -> None:
    # Ratio 0.8 / 0.5 = 1.6, clipped at 1.2: -1.2. Ratio 0.2 / 0.5 = 0.4 with A = -2: 2 * max(0.4, 0.8) = 1.6.
    rollouts = [Rollout(logits(0.2, 0.8), [1], [HALF], 1.0), Rollout(logits(0.2, 0.8), [0], [HALF], -2.0)]
    # Teacher (0, 1) after the cut, student (0.5, 0.5), m = (0.25, 0.75).
    kept = [Kept(logits(0.5, 0.5), logits(0.1, 0.9))]
    jsd = 0.5 * math.log(1 / 0.75) + 0.5 * (0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75))
    loss = hdpo_loss(rollouts, kept, coef=0.1, topk=1)
    assert loss.grpo.item() == pytest.approx((-1.2 + 1.6) / 2)
    assert loss.jsd.item() == pytest.approx(jsd)
    assert loss.total.item() == pytest.approx(0.2 + 0.1 * jsd)


def test_a_bad_tokens_loss_is_bounded_by_the_dual_clip() -> None:
    rollouts = [Rollout(logits(0.9, 0.1), [0], [math.log(0.1)], -1.0)]
    assert hdpo_loss(rollouts, [], coef=1.0, topk=1).total.item() == pytest.approx(3.0)


def test_each_term_is_a_mean_over_its_own_tokens() -> None:
    long = Rollout(logits(0.5, 0.5).repeat(3, 1), [0, 0, 0], [HALF] * 3, 1.0)
    short = Rollout(logits(0.5, 0.5), [0], [HALF], -1.0)
    kept = [Kept(logits(0.5, 0.5).repeat(5, 1), logits(0.5, 0.5).repeat(5, 1))]
    loss = hdpo_loss([long, short], kept, coef=1.0, topk=2)
    assert loss.grpo.item() == pytest.approx((-3 + 1) / 4)
    assert loss.jsd.item() == pytest.approx(0.0, abs=1e-12)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = logits(0.5, 0.5).requires_grad_(), logits(0.1, 0.9).requires_grad_()
    hdpo_loss([], [Kept(student, teacher)], coef=1.0, topk=1).total.backward()
    assert teacher.grad is None and student.grad is not None and student.grad.abs().max() > 0.1


@given(st.integers(0, 10_000), st.integers(2, 30), st.data())
def test_the_fast_divergence_is_the_defined_one(seed: int, vocabulary: int, data: st.DataObject) -> None:
    topk = data.draw(st.integers(1, vocabulary))
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(4, vocabulary, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    student.requires_grad_()
    fast = topk_divergence(student, teacher_topk(teacher, topk), torch.arange(4)).per_token
    slow = torch.stack([reference.jsd(s, t, topk) for s, t in zip(student, teacher, strict=True)])
    torch.testing.assert_close(fast, slow)
    [fast_gradient], [slow_gradient] = (torch.autograd.grad(v.sum(), student) for v in (fast, slow))
    torch.testing.assert_close(fast_gradient, slow_gradient)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=3, max_size=16))
def test_the_fast_advantage_is_the_defined_one(rewards: list[float]) -> None:
    fast = leave_one_out_advantage(torch.tensor(rewards, dtype=torch.float64))
    assert fast.tolist() == pytest.approx(reference.advantages(rewards), abs=1e-12)


def test_tokens_that_a_tool_wrote_enter_no_sum_and_no_count() -> None:
    """A rollout and a kept trajectory of three tokens each, of which the model wrote the first and the last."""
    rollout = Rollout(logits(0.2, 0.8).repeat(3, 1), [1, 0, 0], [HALF] * 3, 1.0, mask=[1, 0, 1])
    assert hdpo_loss([rollout], [], coef=1.0, topk=1).grpo.item() == pytest.approx((-1.2 - 0.4) / 2)
    student, teacher = torch.cat([logits(0.5, 0.5), logits(0.9, 0.1), logits(0.5, 0.5)]), logits(0.1, 0.9).repeat(3, 1)
    whole = hdpo_loss([], [Kept(student[::2], teacher[::2])], coef=1.0, topk=1).jsd
    assert hdpo_loss([], [Kept(student, teacher, mask=[1, 0, 1])], coef=1.0, topk=1).jsd.item() == whole.item() > 0
