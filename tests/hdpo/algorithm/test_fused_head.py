"""The fused head against plain logits and autograd: log-probabilities, entropy and divergence in one backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.fused_head import HeadResults, fused_head, head_topk
from recipe.hdpo.algorithm.head_chunks import HeadChunks
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, teacher_topk

N, H, V, K = 11, 6, 40, 5
ROWS = torch.tensor([0, 3, 4, 5, 10])


class Inputs(NamedTuple):
    hidden_NH: torch.Tensor
    weight_VH: torch.Tensor
    labels_N: torch.Tensor
    teacher: TeacherTopK


def make_inputs(dtype: torch.dtype, k: int = K) -> Inputs:
    """Two of the distilled tokens have a label that is among the teacher's top-k."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, H, generator=generator, dtype=torch.float64)
    weight = torch.randn(V, H, generator=generator, dtype=torch.float64)
    teacher = teacher_topk((hidden + 0.5)[ROWS] @ weight.t(), k)
    labels = torch.randint(V, (N,), generator=generator)
    labels[3], labels[10] = teacher.ids[1, 0], teacher.ids[4, -1]
    return Inputs(hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), labels, teacher)


def by_logits(inputs: Inputs, temperature: float, **options: Any) -> HeadResults:
    """The same results from whole logits, by autograd and :func:`topk_divergence`."""
    logits = inputs.hidden_NH @ inputs.weight_VH.t() / temperature
    log_q = logits.log_softmax(-1)
    entropy = -(log_q.exp() * log_q).sum(-1)
    divergence = topk_divergence(logits, inputs.teacher, ROWS, **options)
    return HeadResults(log_q.gather(-1, inputs.labels_N[:, None])[:, 0], entropy, divergence)


def gradients(inputs: Inputs, found: HeadResults, entropy: bool = True) -> tuple[torch.Tensor, ...]:
    """Of a loss in which every token and every term weighs something else."""
    assert found.divergence is not None
    weights = torch.linspace(-1.0, 2.0, N, dtype=found.log_probs_N.dtype)
    loss = (found.log_probs_N * weights).sum() + (found.divergence.per_token * weights[ROWS].exp()).sum()
    if entropy:
        assert found.entropy_N is not None
        loss = loss + (found.entropy_N * weights.flip(0)).sum()
    return torch.autograd.grad(loss, (inputs.hidden_NH, inputs.weight_VH))


@pytest.mark.parametrize("chunk_size", [1, 4, None])
@pytest.mark.parametrize("options", [{"kind": "jsd"}, {"beta": 0.2}, {"kind": "forward_kl"}, {"kind": "reverse_kl"}])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_values_and_gradients_equal_those_of_whole_logits(chunk_size: int | None, options: Any, temperature: float):
    inputs = make_inputs(torch.float64)
    expected = by_logits(inputs, temperature, **options)
    temperature_N = None if temperature == 1.0 else torch.full((N,), temperature, dtype=torch.float64)
    found = fused_head(
        inputs.hidden_NH, inputs.weight_VH, inputs.labels_N, teacher=inputs.teacher, rows_M=ROWS, entropy=True,
        temperature_N=temperature_N, chunk_size=chunk_size, **options,
    )  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(gradients(inputs, found), gradients(inputs, expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-6)])
def test_gradients_are_rounded_as_whole_logits_round_them(dtype: torch.dtype, limit: float):
    """Relative to the largest entry, against float64 at the same rounded inputs; four chunks."""
    inputs = make_inputs(dtype)
    exact = Inputs(*(t.detach().double().requires_grad_() for t in inputs[:2]), *inputs[2:])
    found = fused_head(*inputs[:3], teacher=inputs.teacher, rows_M=ROWS, entropy=True, chunk_size=3)
    for ours, theirs in zip(gradients(inputs, found), gradients(exact, by_logits(exact, 1.0)), strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - theirs).abs().max() <= limit * theirs.abs().max()


def test_the_weights_gradient_is_added_up_in_float32():
    """512 chunks of one token: bfloat16 sums of as many parts would be off by several parts in a hundred."""
    torch.manual_seed(0)
    hidden, weight = torch.rand(512, 4), torch.rand(8, 4)
    labels = torch.zeros(512, dtype=torch.int64)
    found = {}
    for dtype, chunk_size in ((torch.bfloat16, 1), (torch.float64, None)):
        leaf = weight.bfloat16().to(dtype).requires_grad_()
        fused_head(hidden.bfloat16().to(dtype), leaf, labels, chunk_size=chunk_size).log_probs_N.sum().backward()
        assert leaf.grad is not None
        found[dtype] = leaf.grad.double()
    error = (found[torch.bfloat16] - found[torch.float64]).abs().max() / found[torch.float64].abs().max()
    assert error < 2**-8


def test_a_frozen_head_gets_no_gradient_and_hidden_states_the_same():
    inputs = make_inputs(torch.float64)
    frozen = inputs._replace(weight_VH=inputs.weight_VH.detach())
    expected = torch.autograd.grad(by_logits(inputs, 1.0).log_probs_N.sum(), inputs.hidden_NH)
    found = torch.autograd.grad(fused_head(*frozen[:3]).log_probs_N.sum(), inputs.hidden_NH)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_no_token_gives_empty_results_and_a_zero_gradient_of_the_weight():
    inputs = make_inputs(torch.float32)
    found = fused_head(inputs.hidden_NH[:0], inputs.weight_VH, inputs.labels_N[:0], entropy=True)
    assert len(found.log_probs_N) == 0 and found.divergence is None
    found.log_probs_N.sum().backward()
    assert inputs.weight_VH.grad is not None and float(inputs.weight_VH.grad.abs().max()) == 0.0


def test_the_whole_vocabulary_can_be_compared():
    inputs = make_inputs(torch.float64, k=V)
    expected = gradients(inputs, by_logits(inputs, 1.0))
    found = fused_head(*inputs[:3], teacher=inputs.teacher, rows_M=ROWS, entropy=True, chunk_size=4)
    for ours, theirs in zip(gradients(inputs, found), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [1, K, None])
def test_the_teachers_top_k_is_that_of_whole_logits(k: int | None):
    inputs = make_inputs(torch.float64)
    temperature = torch.linspace(0.5, 2.0, N, dtype=torch.float64)
    expected = teacher_topk(inputs.hidden_NH @ inputs.weight_VH.t() / temperature[:, None], k)
    found = head_topk(inputs.hidden_NH, inputs.weight_VH, k, temperature_M=temperature, chunk_size=4)
    assert torch.equal(found.ids, expected.ids)
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=1e-10, atol=1e-12)


def test_a_chunk_is_the_only_tensor_of_the_size_of_logits(monkeypatch: pytest.MonkeyPatch):
    made = []
    new = torch.empty

    def record(*shape: Any, **options: Any) -> torch.Tensor:
        made.append(new(*shape, **options))
        return made[-1]

    monkeypatch.setattr(torch, "empty", record)
    chunks = HeadChunks(torch.ones(1000, 2), torch.ones(7, 2), None, 16)
    assert [span.stop - span.start for span in chunks.spans()] == 62 * [16] + [8]
    assert max(t.numel() for t in made) == 16 * 7


def test_a_second_derivative_is_refused():
    inputs = make_inputs(torch.float64)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(fused_head(*inputs[:3]).log_probs_N.sum(), inputs.hidden_NH, create_graph=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_VH": torch.zeros(V, H + 1, dtype=torch.float64)}, r"must be \(N, H\)"),
        ({"weight_VH": torch.zeros(V, H)}, "cast one"),
        ({"rows_M": ROWS.flip(0)}, "must ascend"),
        ({"rows_M": None}, "needs rows_M"),
        ({"rows_M": ROWS + 1}, "rows span"),
        ({"beta": 1.0}, "must lie in"),
        ({"chunk_size": 0}, "at least 1 token"),
    ],
    ids=str,
)
def test_bad_input_is_refused_with_the_way_out(change: dict[str, Any], message: str):
    inputs = make_inputs(torch.float64)._asdict() | {"rows_M": ROWS}
    with pytest.raises(ValueError, match=message):
        fused_head(**inputs | change)
