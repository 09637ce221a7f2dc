"""The propositions of docs/theory.md, checked numerically."""

import itertools
import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recipe.hdpo.algorithm.advantage import leave_one_out_advantage
from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.teacher_topk import teacher_topk

ROOT = Path(__file__).parents[3]


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) in nats over the last axis."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


# Proposition 1's lemma


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**31), vocab=st.integers(2, 200), peak=st.floats(0.0, 30.0), gap=st.floats(1e-3, 30.0))
def test_kl_is_at_most_half_the_squared_largest_logit_difference(seed, vocab, peak, gap):
    generator = torch.Generator().manual_seed(seed)
    z, delta = (torch.randn(20, vocab, generator=generator, dtype=torch.float64) for _ in range(2))
    z, delta = peak * z, gap * delta
    bound = delta.abs().amax(-1) ** 2 / 2
    p, q = z.softmax(-1), (z + delta).softmax(-1)
    assert (kl(p, q) <= bound * (1 + 1e-9) + 1e-12).all()
    assert (kl(q, p) <= bound * (1 + 1e-9) + 1e-12).all()


def test_the_lemma_holds_with_no_smaller_constant():
    """z = 0 on two tokens and delta = (a, -a): KL = ln cosh a = a^2/2 - a^4/12 + ..., so KL/(a^2/2) -> 1."""
    a = 0.01
    z, delta = torch.zeros(2, dtype=torch.float64), torch.tensor([a, -a], dtype=torch.float64)
    found = kl(z.softmax(-1), (z + delta).softmax(-1)).item()
    assert found == pytest.approx(math.log(math.cosh(a)), rel=1e-9)
    assert 0.9999 < found / (a**2 / 2) < 1


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**31), vocab=st.integers(2, 50), gap=st.floats(1e-2, 5.0))
def test_full_vocabulary_jsd_is_at_most_a_quarter_of_the_squared_largest_logit_difference(seed, vocab, gap):
    generator = torch.Generator().manual_seed(seed)
    z, delta = (torch.randn(20, vocab, generator=generator, dtype=torch.float64) for _ in range(2))
    teacher = teacher_topk(z + gap * delta, None)
    jsd = topk_divergence(z, teacher, torch.arange(20)).per_token
    difference = gap * delta
    tighter = (difference.amax(-1) - difference.amin(-1)) / 2
    assert (tighter <= difference.abs().amax(-1)).all()
    assert (jsd <= (tighter**2 / 4).clamp(max=math.log(2)) + 1e-12).all()


# Proposition 2: a policy over all token sequences of length 4 over 3 tokens

VOCAB, LENGTH = 3, 4
TRAJECTORIES = torch.tensor(list(itertools.product(range(VOCAB), repeat=LENGTH)))


def toy_policy(seed: int) -> dict[tuple[int, ...], torch.Tensor]:
    """Next-token probabilities for every prefix."""
    generator = torch.Generator().manual_seed(seed)
    prefixes = [p for length in range(LENGTH) for p in itertools.product(range(VOCAB), repeat=length)]
    return {p: (0.5 * torch.randn(VOCAB, generator=generator).double()).softmax(-1) for p in prefixes}


def trajectory_probabilities(policy: dict[tuple[int, ...], torch.Tensor]) -> torch.Tensor:
    """pi(tau) of every trajectory, the product of its next-token probabilities."""
    rows = [tuple(row) for row in TRAJECTORIES.tolist()]
    return torch.stack([torch.stack([policy[t[:i]][t[i]] for i in range(LENGTH)]).prod() for t in rows])


REFERENCE = trajectory_probabilities(toy_policy(0))
REWARD = (TRAJECTORIES.sum(-1) == 5).double()  # the verifier: R = 1 if the tokens add up to 5
SUCCESS = (REFERENCE * REWARD).sum()
FILTERED = REFERENCE * REWARD / SUCCESS  # pi_ref(tau | R = 1)


def regularised_optimum(beta: float) -> torch.Tensor:
    """pi_ref(tau) exp(R(tau)/beta)/Z."""
    return (REFERENCE.log() + REWARD / beta).softmax(0)


def objective(policy: torch.Tensor, beta: float) -> torch.Tensor:
    """E[R] - beta KL(pi || pi_ref)."""
    return (policy * REWARD).sum(-1) - beta * kl(policy, REFERENCE)


def test_toy_policy_is_a_distribution_with_both_outcomes():
    assert REFERENCE.sum().item() == pytest.approx(1.0)
    assert 0.02 < SUCCESS < 0.5


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0])
def test_exponential_tilting_maximises_the_kl_regularised_reward(beta):
    """The maximum is beta ln Z, and policies beside it lose beta KL(pi || pi*), so all of them do worse."""
    best = regularised_optimum(beta)
    log_z = (REFERENCE.log() + REWARD / beta).logsumexp(0)
    assert objective(best, beta).item() == pytest.approx(beta * log_z.item())
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(200, len(best), generator=generator, dtype=torch.float64)
    others = (best.log() + 0.1 * noise).softmax(-1)
    loss = objective(best, beta) - objective(others, beta)
    assert (loss > 0).all()
    torch.testing.assert_close(loss, beta * kl(others, best), rtol=1e-6, atol=1e-12)


def test_the_optimum_tends_to_the_filtered_policy_as_beta_falls():
    """Total variation to pi_ref(. | R = 1) is the mass on R = 0: (1 - s)/(1 - s + s e^(1/beta)), s = success rate."""
    distances = []
    for beta in (4.0, 1.0, 0.3, 0.1, 0.05, 0.02):
        distance = 0.5 * (regularised_optimum(beta) - FILTERED).abs().sum().item()
        s = SUCCESS.item()
        assert distance == pytest.approx((1 - s) / (1 - s + s * math.exp(1 / beta)), rel=1e-6, abs=1e-14)
        distances.append(distance)
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.5 and distances[-1] < 1e-15


def sample_trajectories(policy: dict[tuple[int, ...], torch.Tensor], count: int, seed: int) -> torch.Tensor:
    """Token by token, as a rollout is made; (count, LENGTH)."""
    generator = torch.Generator().manual_seed(seed)
    sampled = torch.zeros(count, 0, dtype=torch.int64)
    for _ in range(LENGTH):
        probabilities = torch.stack([policy[tuple(row)] for row in sampled.tolist()])
        sampled = torch.cat([sampled, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
    return sampled


def p_value(kept: torch.Tensor, expected: torch.Tensor) -> float:
    """Chi-square of sampled trajectories against a distribution over the successful ones."""
    index = (kept * VOCAB ** torch.arange(LENGTH - 1, -1, -1)).sum(-1)
    counts = torch.bincount(index, minlength=len(TRAJECTORIES))
    successes = REWARD.bool()
    assert counts[~successes].sum() == 0
    wanted = expected[successes] * len(kept)
    assert wanted.min() > 5
    return float(stats.chisquare(counts[successes].numpy(), wanted.numpy()).pvalue)


def test_sampling_and_keeping_successes_draws_from_the_filtered_policy():
    sampled = sample_trajectories(toy_policy(0), 20_000, seed=2)
    kept = sampled[sampled.sum(-1) == 5]
    assert len(kept) / len(sampled) == pytest.approx(SUCCESS.item(), abs=0.015)
    assert p_value(kept, FILTERED) > 0.001
    uniform = REWARD / REWARD.sum()
    assert p_value(kept, uniform) < 1e-9
    other = trajectory_probabilities(toy_policy(3)) * REWARD
    assert p_value(kept, other / other.sum()) < 1e-9


def test_the_filtered_policy_picks_next_tokens_unlike_the_teacher_itself():
    """What filtering selects are trajectories; the per-token target stays the teacher's own conditional."""
    filtered_first_token = torch.stack([FILTERED[TRAJECTORIES[:, 0] == token].sum() for token in range(VOCAB)])
    teacher_first_token = toy_policy(0)[()]
    assert 0.5 * (filtered_first_token - teacher_first_token).abs().sum() > 0.1


def test_no_privileged_rollout_is_kept_with_probability_one_minus_s_to_the_j():
    s, rollouts = SUCCESS.item(), 3
    solved = (sample_trajectories(toy_policy(0), 12_000, seed=4).sum(-1) == 5).view(-1, rollouts)
    nothing = (~solved.any(1)).double().mean().item()
    assert nothing == pytest.approx((1 - s) ** rollouts, abs=4 * math.sqrt(0.25 / len(solved)))


# Truncation


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), vocab=st.integers(4, 60), k=st.integers(1, 3))
def test_with_the_same_context_the_truncated_loss_moves_mass_from_the_tail_onto_the_top_k(seed, vocab, k):
    logits = torch.randn(1, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    student = logits.clone().requires_grad_()
    teacher = teacher_topk(logits, k)
    topk_divergence(student, teacher, torch.tensor([0])).per_token.sum().backward()
    head = torch.zeros(vocab, dtype=torch.bool)
    head[teacher.ids[0]] = True
    # A descent step raises the logits with a negative gradient.
    assert (student.grad[0, head] < 0).all() and (student.grad[0, ~head] > 0).all()


# Cliffs


def policy_gradient(rewards: list[float]) -> torch.Tensor:
    """Gradient of -sum_i A_i ln pi(y_i) for one-token rollouts y_i = 0, 1, 2, 0."""
    logits = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    advantages = leave_one_out_advantage(torch.tensor(rewards))
    loss = -(advantages * logits.log_softmax(-1)[torch.tensor([0, 1, 2, 0])]).sum()
    return torch.autograd.grad(loss, logits)[0]


def test_the_policy_gradient_vanishes_where_all_rewards_are_equal_and_only_there():
    assert torch.equal(policy_gradient([0.0, 0.0, 0.0, 0.0]), torch.zeros(3))
    assert torch.equal(policy_gradient([1.0, 1.0, 1.0, 1.0]), torch.zeros(3))
    for rewards in itertools.product((0.0, 1.0), repeat=4):
        if len(set(rewards)) == 2:
            assert policy_gradient(list(rewards)).abs().max() > 0.1


def test_distillation_has_a_gradient_where_the_policy_gradient_has_none():
    logits = torch.tensor([[0.3, -0.2, 0.9]], requires_grad=True)
    teacher = teacher_topk(torch.tensor([[3.0, 0.0, 0.0]]), 2)
    topk_divergence(logits, teacher, torch.tensor([0])).per_token.sum().backward()
    assert logits.grad[0, 0] < -0.05 and logits.grad[0, 2] > 0.05


# Section 8: students that are sure of a wrong token


def _gradient(kind: str, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Of each row's divergence in the student's logits, (N, V)."""
    logits = student.clone().requires_grad_()
    topk_divergence(
        logits, teacher_topk(teacher, None), torch.arange(len(logits)), kind=kind
    ).per_token.sum().backward()
    assert logits.grad is not None
    return logits.grad


def _sure(seed: int, odds: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of student and teacher, (20, 12) each; epsilon and delta of the first three tokens, which the teacher is
    sure of and the student rules out."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(20, 12, generator=generator, dtype=torch.float64) for _ in "st")
    student[:, :3] -= odds
    teacher[:, 3:] -= odds
    return student, teacher, student.softmax(-1)[:, :3].sum(-1), teacher.softmax(-1)[:, 3:].sum(-1)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), odds=st.floats(-2.0, 25.0))
def test_the_gradient_of_the_jsd_vanishes_where_the_student_is_sure_of_what_the_teacher_rules_out(seed, odds):
    student, teacher, epsilon, delta = _sure(seed, odds)
    size = _gradient("jsd", student, teacher).abs().sum(-1)
    q, p = student.softmax(-1), teacher.softmax(-1)
    bound = (q * torch.log1p(p / q)).sum(-1)
    assert (size <= bound + 1e-12).all()
    assert (bound <= epsilon * torch.log1p(1 / epsilon) + delta + 1e-12).all()


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), odds=st.floats(-2.0, 25.0))
def test_the_gradient_of_forward_kl_does_not_vanish_there(seed, odds):
    student, teacher, epsilon, delta = _sure(seed, odds)
    assert (_gradient("forward_kl", student, teacher).abs().sum(-1) >= 2 * (1 - epsilon - delta) - 1e-12).all()


# The document


def test_every_test_that_the_document_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/theory.md").read_text(encoding="utf-8")))
    files = ["algorithm/test_theory.py", "algorithm/test_divergence.py", "algorithm/test_advantage.py"]
    files += ["algorithm/test_token_controls.py", "training/test_actor.py", "rollout/test_agent_loop.py"]
    sources = [ROOT / "tests/hdpo" / name for name in files]
    defined = set(re.findall(r"^def (test_\w+)", "\n".join(map(Path.read_text, sources)), re.MULTILINE))
    assert len(named) > 10
    assert named <= defined
