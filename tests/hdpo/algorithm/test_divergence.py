"""JSD_k and its relatives: hand-worked numbers, brute force over the vocabulary, gradients, memory, bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, teacher_topk

LN2 = math.log(2.0)
KINDS = ["jsd", "forward_kl", "reverse_kl"]
# kind, beta: what a gradient test has to cover.
CASES = [("jsd", 0.1), ("jsd", 0.5), ("jsd", 0.9), ("forward_kl", 0.5), ("reverse_kl", 0.5)]


def logits_of(*rows: list[float]) -> torch.Tensor:
    """Float64 logits whose softmax is exactly the given probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


def random_case(seed: int, rows: int, vocab: int, k: int, dtype=torch.float64, scale: float = 3.0):
    """Student logits (rows, vocab) and the top-k of an unrelated teacher."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(rows, vocab, generator=generator, dtype=torch.float64) for _ in "st")
    return student.to(dtype).requires_grad_(), teacher_topk(teacher, k)


def all_rows(logits: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(logits))


def reference(logits: torch.Tensor, teacher: TeacherTopK, kind: str = "jsd", beta: float = 0.5) -> torch.Tensor:
    """The definition over the whole vocabulary in float64, differentiated by autograd. Finite logits only."""
    q = logits.double().softmax(-1)
    log_p = teacher.log_probs.double()
    if kind == "reverse_kl":
        q_s, rest = q.gather(-1, teacher.ids), 1 - q.gather(-1, teacher.ids).sum(-1)
        on_s = (q_s * (q_s.log() - log_p)).sum(-1)
        if teacher.ids.shape[1] == logits.shape[1]:
            return on_s
        return on_s + rest * (rest.log() - (1 - log_p.exp().sum(-1)).log())
    truncated = torch.zeros_like(q).scatter(-1, teacher.ids, log_p.softmax(-1))
    if kind == "forward_kl":
        return (torch.xlogy(truncated, truncated) - truncated * q.log()).sum(-1)
    m = beta * truncated + (1 - beta) * q
    teacher_part = torch.xlogy(truncated, truncated) - truncated * m.log()
    student_part = q * (q.log() - m.log())
    return (beta * teacher_part + (1 - beta) * student_part).sum(-1)


def weighted_gradient(per_token: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Gradient of a sum with unequal weights, so that a mix-up of rows shows."""
    weights = torch.linspace(0.5, 2.0, len(per_token), dtype=per_token.dtype)
    return torch.autograd.grad((per_token * weights).sum(), logits)[0]


# Numbers worked by hand


def test_two_tokens_by_hand():
    """p = (3/4, 1/4), q = (1/2, 1/2), m = (5/8, 3/8)."""
    teacher = teacher_topk(logits_of([0.75, 0.25]), 2)
    by_hand = 0.5 * (0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3)) + 0.25 * (math.log(4 / 5) + math.log(4 / 3))
    assert by_hand == pytest.approx(0.0338221, abs=1e-7)
    found = topk_divergence(logits_of([0.5, 0.5]), teacher, torch.tensor([0]))
    assert found.per_token.item() == pytest.approx(by_hand, abs=1e-14)


def test_tail_of_three_tokens_by_hand():
    """Top-1 of p = (1/10, 1/10, 8/10), so p~ = (0, 0, 1); q = (1/4, 1/4, 1/2), m = (1/8, 1/8, 3/4)."""
    teacher = teacher_topk(logits_of([0.1, 0.1, 0.8]), 1)
    student = logits_of([0.25, 0.25, 0.5]).requires_grad_()
    found = topk_divergence(student, teacher, torch.tensor([0]))
    by_hand = 0.5 * math.log(4 / 3) + 0.5 * 0.5 * math.log(2 / 3) + 0.5 * 0.5 * LN2
    assert found.per_token.item() == pytest.approx(by_hand, abs=1e-14)
    assert found.student_mass.item() == pytest.approx(0.5, abs=1e-14)
    assert found.teacher_mass.item() == pytest.approx(0.8, abs=1e-14)

    found.per_token.sum().backward()
    mean = 0.25 * math.log(2 / 3) + 0.25 * LN2
    outside, inside = 0.25 * (0.5 * LN2 - mean), 0.5 * (0.5 * math.log(2 / 3) - mean)
    torch.testing.assert_close(student.grad[0], torch.tensor([outside, outside, inside], dtype=torch.float64))


def test_kl_kinds_by_hand():
    """The case above: KL((0,0,1) || q) = ln 2; the reverse one over the events {token 2} and {any other}."""
    teacher, student = teacher_topk(logits_of([0.1, 0.1, 0.8]), 1), logits_of([0.25, 0.25, 0.5])
    forward = topk_divergence(student, teacher, torch.tensor([0]), kind="forward_kl").per_token.item()
    reverse = topk_divergence(student, teacher, torch.tensor([0]), kind="reverse_kl").per_token.item()
    assert forward == pytest.approx(LN2, abs=1e-14)
    assert reverse == pytest.approx(0.5 * math.log(5 / 8) + 0.5 * math.log(5 / 2), abs=1e-14)


def test_jsd_is_ln2_when_the_student_gives_nothing_to_the_top_k():
    teacher = teacher_topk(logits_of([0.05, 0.05, 0.9]), 1)
    student = torch.tensor([[0.0, 1.0, -math.inf]])
    assert topk_divergence(student, teacher, torch.tensor([0])).per_token.item() == pytest.approx(LN2, abs=1e-6)


# Against the definition


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31), vocab=st.integers(1, 9), k=st.integers(1, 9), beta=st.floats(0.02, 0.98),
    kind=st.sampled_from(KINDS), scale=st.sampled_from([0.1, 1.0, 5.0]),
)  # fmt: skip
def test_equals_brute_force_over_the_vocabulary(seed, vocab, k, beta, kind, scale):
    logits, teacher = random_case(seed, 4, vocab, min(k, vocab), scale=scale)
    found = topk_divergence(logits, teacher, all_rows(logits), kind=kind, beta=beta)
    expected = reference(logits, teacher, kind, beta)
    torch.testing.assert_close(found.per_token, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        weighted_gradient(found.per_token, logits), weighted_gradient(expected, logits), rtol=1e-7, atol=1e-12
    )
    torch.testing.assert_close(found.student_mass, logits.softmax(-1).gather(-1, teacher.ids).sum(-1).detach())
    torch.testing.assert_close(found.teacher_mass, teacher.log_probs.exp().sum(-1))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), vocab=st.integers(2, 9), k=st.integers(1, 9), scale=st.floats(0.01, 20.0))
def test_jsd_lies_between_its_bounds_in_total_variation(seed, vocab, k, scale):
    """TV^2/2 <= JSD <= TV ln 2 (Pinsker, and convexity): so within [0, ln 2], and 0 only where p~ = q."""
    logits, teacher = random_case(seed, 4, vocab, min(k, vocab), dtype=torch.float32, scale=scale)
    truncated = torch.zeros(4, vocab).scatter(-1, teacher.ids, teacher.log_probs.softmax(-1).float())
    total_variation = 0.5 * (truncated - logits.detach().softmax(-1)).abs().sum(-1)
    jsd = topk_divergence(logits, teacher, all_rows(logits)).per_token
    assert (jsd >= 0.5 * total_variation**2 - 1e-6).all()
    assert (jsd <= LN2 * total_variation + 1e-6).all()


@pytest.mark.parametrize(("kind", "beta"), CASES)
def test_same_context_gives_zero_value_and_gradient_at_full_vocabulary(kind, beta):
    logits = random_case(0, 5, 300, 1, dtype=torch.float32)[0]
    found = topk_divergence(logits, teacher_topk(logits, None), all_rows(logits), kind=kind, beta=beta).per_token
    assert found.max().item() < 1e-6
    assert weighted_gradient(found, logits).abs().max().item() < 1e-6
    if kind == "jsd":
        assert found.min().item() >= 0 and found.max().item() < 1e-12
    shifted = topk_divergence(logits, teacher_topk(logits * 1.01, None), all_rows(logits), kind=kind, beta=beta)
    assert shifted.per_token.min().item() > 1e-6


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_small_jsd_keeps_its_digits_in_float32(beta):
    """About 1e-9, where a sum of terms near 0.1 that cancel would leave nothing but rounding."""
    logits = random_case(18, 50, 30, 1, dtype=torch.float32, scale=1.0)[0]
    teacher = teacher_topk(logits.double() + 1e-4 * torch.randn(50, 30), None)
    expected = reference(logits, teacher, beta=beta)
    found = topk_divergence(logits, teacher, all_rows(logits), beta=beta).per_token
    assert expected.max() < 1e-8
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=1e-12)


@pytest.mark.parametrize(("kind", "beta"), CASES)
def test_rounding_never_makes_it_negative(kind, beta):
    logits = random_case(19, 500, 20, 1, dtype=torch.float32)[0]
    found = topk_divergence(logits, teacher_topk(logits, None), all_rows(logits), kind=kind, beta=beta)
    assert found.per_token.min() >= 0


def test_same_context_below_full_vocabulary_costs_what_the_truncation_cuts():
    """With s = sum_S q: 1/2 ln(2/(1+s)) + s/2 ln(2s/(1+s)) + (1-s)/2 ln 2, which is 0 only at s = 1."""
    logits = random_case(1, 6, 20, 1)[0]
    found = topk_divergence(logits, teacher_topk(logits, 4), all_rows(logits))
    s = found.student_mass
    expected = 0.5 * (2 / (1 + s)).log() + 0.5 * s * (2 * s / (1 + s)).log() + 0.5 * (1 - s) * LN2
    torch.testing.assert_close(found.per_token, expected)
    assert (found.per_token > 0.001).all()


def test_beta_near_its_ends_tends_to_the_two_kls():
    logits, teacher = random_case(2, 6, 8, 3, scale=1.0)
    near_0 = topk_divergence(logits, teacher, all_rows(logits), beta=1e-7).per_token / 1e-7
    forward = topk_divergence(logits, teacher, all_rows(logits), kind="forward_kl").per_token
    torch.testing.assert_close(near_0, forward, rtol=1e-5, atol=1e-7)

    logits, teacher = random_case(2, 6, 8, 8, scale=1.0)
    near_1 = topk_divergence(logits, teacher, all_rows(logits), beta=1 - 1e-7).per_token / 1e-7
    reverse = topk_divergence(logits, teacher, all_rows(logits), kind="reverse_kl").per_token
    torch.testing.assert_close(near_1, reverse, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(forward, reverse, rtol=0.05)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), k=st.integers(1, 7))
def test_reverse_kl_is_a_lower_bound_that_grows_with_k_to_the_full_one(seed, k):
    logits, teacher = random_case(seed, 4, 8, None)
    coarse, fine = (
        topk_divergence(
            logits, TeacherTopK(teacher.ids[:, :n], teacher.log_probs[:, :n]), all_rows(logits), kind="reverse_kl"
        ).per_token
        for n in (k, k + 1)
    )
    q = logits.softmax(-1)
    log_p = torch.zeros_like(q).scatter(-1, teacher.ids, teacher.log_probs)
    full = (q * (q.log() - log_p)).sum(-1)
    assert (coarse <= fine + 1e-9).all()
    assert (fine <= full + 1e-9).all()
    if k == 7:
        torch.testing.assert_close(fine, full)


# Gradient


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize(("kind", "beta"), CASES)
def test_gradcheck_in_float64(kind, beta, k):
    logits, teacher = random_case(3, 5, 6, k, scale=1.0)
    rows = torch.tensor([4, 0, 1, 2, 3])
    assert torch.autograd.gradcheck(
        lambda z: topk_divergence(z, teacher, rows, kind=kind, beta=beta, chunk_size=2).per_token, logits
    )


@pytest.mark.parametrize("protect", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5, 6], [2, 3, 4], [6, 0, 3], [3, 2, 4, 0, 6, 5, 1]])
def test_rows_select_positions_and_the_others_get_exactly_zero(rows, kind, protect):
    logits, _ = random_case(4, 7, 11, 1)
    teacher = random_case(5, len(rows), 11, 4)[1]
    found = topk_divergence(
        logits, teacher, torch.tensor(rows), kind=kind, chunk_size=2, protect_logits=protect
    ).per_token
    expected = reference(logits[torch.tensor(rows)], teacher, kind)
    torch.testing.assert_close(found, expected)
    gradient = weighted_gradient(found, logits)
    torch.testing.assert_close(gradient, weighted_gradient(expected, logits))
    untouched = [row for row in range(7) if row not in rows]
    assert (gradient[untouched] == 0).all()


@pytest.mark.parametrize("k", [5, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_chunk_size_changes_nothing(kind, k):
    logits, teacher = random_case(6, 23, 64, k, dtype=torch.float32)
    rows = torch.cat([torch.arange(10, 23), torch.arange(0, 10, 3)])
    teacher = TeacherTopK(teacher.ids[: len(rows)], teacher.log_probs[: len(rows)])
    one_go = topk_divergence(logits, teacher, rows, kind=kind).per_token
    gradient = weighted_gradient(one_go, logits)
    for chunk_size in (1, 2, 7, 100):
        found = topk_divergence(logits, teacher, rows, kind=kind, chunk_size=chunk_size).per_token
        torch.testing.assert_close(found, one_go, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(weighted_gradient(found, logits), gradient, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("kind", "beta"), CASES)
def test_low_precision_logits_are_computed_in_float32(kind, beta, dtype):
    logits, teacher = random_case(7, 6, 50, 8, dtype=dtype)
    found = topk_divergence(logits, teacher, all_rows(logits), kind=kind, beta=beta).per_token
    assert found.dtype == torch.float32
    exact_logits = logits.detach().double().requires_grad_()
    exact = reference(exact_logits, teacher, kind, beta)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)
    gradient, expected = weighted_gradient(found, logits), weighted_gradient(exact, exact_logits)
    assert gradient.dtype == dtype
    one_rounding = max(torch.finfo(dtype).eps / 2, 1e-5)
    # p_rest = 1 - sum_S p loses digits in float32 when it is small; only reverse_kl takes its logarithm.
    atol = 1e-5 if kind == "reverse_kl" else 1e-6
    torch.testing.assert_close(gradient.double(), expected, rtol=one_rounding, atol=atol)


def test_teacher_gets_no_gradient():
    logits, teacher = random_case(8, 3, 6, 2)
    log_probs = teacher.log_probs.clone().requires_grad_()
    topk_divergence(logits, TeacherTopK(teacher.ids, log_probs), all_rows(logits)).per_token.sum().backward()
    assert log_probs.grad is None
    assert logits.grad.abs().sum() > 0
    alone = topk_divergence(logits.detach(), TeacherTopK(teacher.ids, log_probs), all_rows(logits))
    assert not alone.per_token.requires_grad
    teacher_logits = torch.randn(3, 6, requires_grad=True)
    assert not teacher_topk(teacher_logits, 2).log_probs.requires_grad


def test_masses_carry_no_gradient():
    logits, teacher = random_case(9, 3, 6, 2)
    found = topk_divergence(logits, teacher, all_rows(logits))
    assert found.per_token.requires_grad
    assert not found.student_mass.requires_grad and not found.teacher_mass.requires_grad


def test_second_derivative_is_refused():
    logits, teacher = random_case(10, 3, 6, 2)
    per_token = topk_divergence(logits, teacher, all_rows(logits)).per_token
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(per_token.sum(), logits, create_graph=True)


@pytest.mark.parametrize("protect", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", [0, 4])
def test_no_rows_give_an_empty_result_and_a_connected_zero_gradient(kind, protect, positions):
    logits = torch.randn(positions, 6, requires_grad=True)
    teacher = TeacherTopK(torch.empty(0, 3, dtype=torch.int64), torch.empty(0, 3))
    rows = torch.empty(0, dtype=torch.int64)
    found = topk_divergence(logits, teacher, rows, kind=kind, protect_logits=protect)
    assert [len(part) for part in found] == [0, 0, 0, 0]
    found.per_token.sum().backward()
    assert torch.equal(logits.grad, torch.zeros(positions, 6))


# Hard inputs


@pytest.mark.parametrize("k", [3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_masked_vocabulary_gives_no_nan(kind, k):
    """Rows: the teacher masks ids, the student masks others, both mask the same, the student masks all of S."""
    teacher_logits, student = torch.randn(4, 8), torch.randn(4, 8)
    teacher_logits[0, :6] = -math.inf
    student[1, ::2] = -math.inf
    teacher_logits[2, 3:], student[2, 3:] = -math.inf, -math.inf
    student[3].scatter_(-1, teacher_topk(teacher_logits, 3).ids[3], -math.inf)
    student.requires_grad_()
    found = topk_divergence(student, teacher_topk(teacher_logits, k), torch.arange(4), kind=kind)
    gradient = weighted_gradient(found.per_token, student)
    assert not found.per_token.isnan().any() and gradient.isfinite().all()
    if kind == "forward_kl":
        assert found.per_token[3].isinf()
    else:
        assert found.per_token.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_logits_stay_finite(kind, dtype):
    student = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, 1e4, 1e4]], dtype=dtype, requires_grad=True)
    teacher = teacher_topk(torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, 0.0], [0.0, -1e4, 1e4]]), 2)
    found = topk_divergence(student, teacher, torch.arange(3), kind=kind).per_token
    assert found.isfinite().all()
    assert weighted_gradient(found, student).isfinite().all()
    if kind == "jsd":
        assert found[0].item() == pytest.approx(LN2, abs=1e-6)
    if kind == "forward_kl":
        assert found[0].item() == pytest.approx(20_000, rel=1e-2)


def test_teacher_probability_near_the_smallest_float_does_not_overflow():
    """q/p = e^95 is inf in float32, p = e^-95 is not 0."""
    student = torch.tensor([[-95.0, 0.0]], requires_grad=True)
    teacher = teacher_topk(torch.tensor([[0.0, -95.0]]), 2)
    found = topk_divergence(student, teacher, torch.tensor([0])).per_token
    assert found.item() == pytest.approx(LN2, abs=1e-6)
    assert weighted_gradient(found, student).isfinite().all()


# Memory


def storages(tensors: list[torch.Tensor]) -> dict[int, int]:
    """Bytes of each distinct storage."""
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


@pytest.mark.parametrize("protect", [False, True])
def test_nothing_of_the_logits_size_is_saved_beside_them(protect):
    logits, teacher = random_case(11, 32, 1000, 4, dtype=torch.float32)
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        topk_divergence(logits, teacher, all_rows(logits), protect_logits=protect, chunk_size=2)
    held = storages([logits, teacher.ids, teacher.log_probs])
    new = sum(size for pointer, size in storages(saved).items() if pointer not in held)
    by_row = 32 * 8 + 32 * 4  # the rows and the float32 log-normalisers
    assert new == by_row + (logits.numel() * 4 if protect else 0)


class LargeOutputs(TorchDispatchMode):
    """Collects the storages of at least `floor` bytes that operations create."""

    def __init__(self, floor: int, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.floor, self.found, self._known, self._alive = floor, [], storages(known), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)):
            for pointer, size in storages([tensor]).items():
                if size >= self.floor and pointer not in self._known:
                    self._known[pointer] = size
                    self._alive.append(tensor)  # so that no address is used twice
                    self.found.append(size)
        return out


@pytest.mark.parametrize("protect", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [4, 1000])
def test_forward_and_backward_make_one_buffer_of_the_logits_size(k, kind, dtype, protect):
    logits, teacher = random_case(12, 32, 1000, k, dtype=dtype)
    size = logits.numel() * logits.element_size()
    held = [logits, teacher.ids, teacher.log_probs]
    with LargeOutputs(size // 4, held) as forward:
        per_token = topk_divergence(
            logits, teacher, all_rows(logits), kind=kind, protect_logits=protect, chunk_size=2
        ).per_token
    with LargeOutputs(size // 4, held) as backward:
        per_token.sum().backward()
    if protect:
        assert forward.found == [size]
        assert logits.grad.untyped_storage().nbytes() == size
    else:
        assert forward.found == []
        assert backward.found == [size]


def test_teacher_topk_makes_nothing_of_the_logits_size():
    logits = torch.randn(32, 1000, dtype=torch.bfloat16)
    rows = torch.randperm(32)
    with LargeOutputs(logits.numel() // 2, [logits]) as made:
        teacher_topk(logits, 4, rows_M=rows, chunk_size=2)
    assert made.found == []


class OverwriteLogits(torch.autograd.Function):
    """Like a cross entropy that writes its gradient into the logits' storage, unseen by the version counter."""

    @staticmethod
    def forward(ctx, logits, gradient, order):
        ctx.storage_alias, ctx.order = logits.detach(), order
        ctx.gradient = gradient
        return logits.new_zeros(())

    @staticmethod
    def backward(ctx, grad):
        ctx.order.append("overwritten")
        ctx.storage_alias.data.copy_(ctx.gradient)
        return ctx.storage_alias.data, None, None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [1, 3]])
@pytest.mark.parametrize("protect", [True, False])
def test_overwritten_logits_spoil_the_gradient_unless_protected(protect, rows, dtype):
    leaf, _ = random_case(13, 5, 9, 1, dtype=dtype)
    teacher = random_case(14, len(rows), 9, 3)[1]
    other_gradient = torch.randn(5, 9).to(dtype)
    exact = leaf.detach().double().requires_grad_()
    loss = 20 * reference(exact[torch.tensor(rows)], teacher).sum()
    expected = torch.autograd.grad(loss, exact)[0] + other_gradient.double()

    order: list[str] = []
    logits = leaf * 1
    per_token = topk_divergence(logits, teacher, torch.tensor(rows), protect_logits=protect).per_token
    per_token.register_hook(lambda grad: order.append("divergence"))
    overwritten = OverwriteLogits.apply(logits, other_gradient, order)
    (20 * per_token.sum() + overwritten).backward()
    assert order == ["overwritten", "divergence"]
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    close = torch.allclose(leaf.grad.double(), expected, rtol=tolerance, atol=tolerance)
    assert close == protect


def test_second_backward_over_protected_logits_raises_instead_of_reading_the_gradient():
    logits, teacher = random_case(15, 3, 6, 2)
    loss = topk_divergence(logits, teacher, all_rows(logits), protect_logits=True).per_token.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# The teacher's side


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), k=st.sampled_from([1, 3, 7, None]), chunk_size=st.integers(1, 9))
def test_teacher_topk_equals_the_sorted_log_softmax(seed, k, chunk_size):
    logits = torch.randn(8, 7, generator=torch.Generator().manual_seed(seed))
    rows = torch.tensor([5, 5, 0, 1, 2])
    found = teacher_topk(logits, k, rows_M=rows, chunk_size=chunk_size)
    values, ids = logits[rows].log_softmax(-1).sort(descending=True)
    assert torch.equal(found.ids, ids[:, :k])
    torch.testing.assert_close(found.log_probs, values[:, :k])


def test_teacher_topk_computes_low_precision_logits_in_float32():
    logits = torch.randn(4, 50).bfloat16()
    found = teacher_topk(logits, 5)
    expected = logits.double().log_softmax(-1).gather(-1, found.ids)
    assert found.log_probs.dtype == torch.float32
    torch.testing.assert_close(found.log_probs.double(), expected, rtol=1e-6, atol=1e-6)


# Bad input


def ok(**changes):
    logits, teacher = random_case(16, 4, 5, 2)
    call = {"student_logits_NV": logits, "teacher": teacher, "rows_M": torch.arange(4), **changes}
    return topk_divergence(**call)


def teacher_of(rows: int, vocab: int, k: int) -> TeacherTopK:
    return random_case(17, rows, vocab, k)[1]


def nan_teacher() -> TeacherTopK:
    """Of logits that are NaN in row 2."""
    logits = torch.randn(4, 5)
    logits[2] = math.nan
    return teacher_topk(logits, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 0.0}, "forward_kl"),
        ({"beta": 1.0}, "reverse_kl"),
        ({"beta": float("nan")}, r"\(0, 1\)"),
        ({"kind": "js"}, "choose one of jsd, forward_kl, reverse_kl"),
        ({"teacher": teacher_of(4, 9, 6)}, "topk=6 exceeds the student's vocabulary of 5"),
        ({"teacher": TeacherTopK(torch.full((4, 1), 5), torch.zeros(4, 1))}, "teacher ids span"),
        ({"teacher": teacher_of(3, 5, 2)}, "4 rows but 3 teacher rows"),
        ({"teacher": nan_teacher(), "kind": "forward_kl"}, "row 2 are NaN"),
        ({"teacher": nan_teacher()}, "row 2 are NaN"),
        ({"rows_M": torch.tensor([0, 1, 2, 4])}, "have 4 rows"),
        ({"rows_M": torch.tensor([0, 1, 2, -1])}, r"span \[-1, 2\]"),
        ({"rows_M": torch.tensor([0, 1, 2, 2])}, "must not repeat"),
        ({"rows_M": torch.tensor([0.0, 1, 2, 3])}, "int64"),
        ({"student_logits_NV": torch.zeros(1, 4, 5)}, r"must be \(N, V\)"),
        ({"chunk_size": 0}, "chunk_size=0"),
    ],
)
def test_bad_input_is_refused_with_the_way_out(changes, message):
    assert len(ok().per_token) == 4
    with pytest.raises(ValueError, match=message):
        ok(**changes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: teacher_topk(torch.zeros(2, 3), 4), r"topk=4 must lie in \[1, 3\]"),
        (lambda: teacher_topk(torch.zeros(2, 3), 0), "topk=0"),
        (lambda: teacher_topk(torch.zeros(1, 2, 3), 1), r"must be \(N, V\)"),
        (lambda: teacher_topk(torch.zeros(2, 3), 1, rows_M=torch.tensor([2])), "have 2 rows"),
        (lambda: TeacherTopK(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 2)), r"\(M, K\)"),
        (lambda: TeacherTopK(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0)), "K >= 1"),
        (lambda: TeacherTopK(torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 3)), "int64"),
    ],
)
def test_bad_teacher_is_refused_with_the_way_out(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("beta", [0.2, 0.5])
def test_where_the_student_masks_the_teachers_best_token_value_and_gradient_are_those_without_it(beta: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits, teacher_logits = (torch.randn(3, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    teacher, masked = teacher_topk(teacher_logits, 4), logits.clone()
    masked[torch.arange(3), teacher.ids[:, 0]] = -math.inf
    masked.requires_grad_()
    finite = masked.detach().masked_fill(masked.isneginf(), -60.0).requires_grad_()
    found = topk_divergence(masked, teacher, torch.arange(3), beta=beta).per_token
    expected = reference(finite, teacher, beta=beta)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(weighted_gradient(found, masked), weighted_gradient(expected, finite))


def test_reverse_kl_takes_a_rest_of_the_teacher_below_the_machine_epsilon_for_that_epsilon() -> None:
    teacher = teacher_topk(torch.tensor([[0.0, -40.0, -50.0]]), 1)
    student = torch.tensor([[0.5, 0.3, 0.2]]).log()
    found = topk_divergence(student, teacher, torch.tensor([0]), kind="reverse_kl").per_token.item()
    eps = torch.finfo(torch.float32).eps
    assert found == pytest.approx(0.5 * math.log(0.5) + 0.5 * math.log(0.5 / eps), rel=1e-5)
