"""Slices of a vocabulary on 2 and 4 gloo ranks against the functions of the whole vocabulary."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from recipe.hdpo.algorithm import vocabulary_parallel
from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, teacher_topk
from recipe.hdpo.algorithm.vocabulary_parallel import VocabularySlice, parallel_divergence, parallel_teacher_topk
from tests.hdpo.algorithm.gloo_threads import on_ranks

# Widths of the slices: even, uneven, and narrower than k.
SLICES = {"2 even": [16, 16], "2 uneven": [5, 27], "4 even": [8, 8, 8, 8], "4 uneven": [1, 20, 3, 8]}
CASES = [("jsd", 0.1), ("jsd", 0.5), ("forward_kl", 0.5), ("reverse_kl", 0.5)]
ROWS = torch.tensor([4, 0, 6, 1, 2])


def _logits(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return 3.0 * torch.randn(7, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _slices(widths: list[int], group: Any, rank: int) -> tuple[slice, VocabularySlice]:
    ends = list(itertools.accumulate(widths, initial=0))
    return slice(ends[rank], ends[rank + 1]), VocabularySlice(ends[rank], ends[-1], group)


def _parallel_topk(logits: torch.Tensor, k: int, rows: torch.Tensor, widths: list[int]) -> list[TeacherTopK]:
    def own(rank: int, group: Any) -> TeacherTopK:
        columns, part = _slices(widths, group, rank)
        return parallel_teacher_topk(logits[:, columns], k, part, rows)

    return on_ranks(len(widths), own)


def _parallel(
    logits: torch.Tensor, teacher: TeacherTopK, rows: torch.Tensor, widths: list[int], **options: Any
) -> tuple[list[Any], torch.Tensor]:
    """Every rank's result, and the gradient of an unevenly weighted sum, slice by slice side by side."""

    def own(rank: int, group: Any) -> tuple[Any, torch.Tensor]:
        columns, part = _slices(widths, group, rank)
        mine = logits[:, columns].clone().requires_grad_()
        found = parallel_divergence(mine, teacher, rows, part, **options)
        (found.per_token * torch.linspace(0.5, 2.0, len(rows))).sum().backward()
        return found, mine.grad

    results, gradients = zip(*on_ranks(len(widths), own), strict=True)
    return list(results), torch.cat(gradients, dim=-1)


@pytest.mark.parametrize("k", [1, 6, 32])
@pytest.mark.parametrize("widths", SLICES.values(), ids=SLICES.keys())
def test_every_rank_finds_the_top_k_of_the_whole_vocabulary(widths: list[int], k: int) -> None:
    logits = _logits(1)
    expected = teacher_topk(logits, k, rows_M=ROWS)
    for found in _parallel_topk(logits, k, ROWS, widths):
        assert torch.equal(found.ids, expected.ids)
        torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "beta"), CASES)
@pytest.mark.parametrize("k", [1, 6, 32])
@pytest.mark.parametrize("widths", SLICES.values(), ids=SLICES.keys())
def test_values_and_gradients_are_those_of_the_whole_vocabulary(
    widths: list[int], k: int, kind: Any, beta: float
) -> None:
    logits, teacher = _logits(2), teacher_topk(_logits(3), k, rows_M=ROWS)
    whole = logits.clone().requires_grad_()
    expected = topk_divergence(whole, teacher, ROWS, kind=kind, beta=beta)
    (expected.per_token * torch.linspace(0.5, 2.0, len(ROWS))).sum().backward()
    results, gradient = _parallel(logits, teacher, ROWS, widths, kind=kind, beta=beta)
    # Where nothing is cut off, reverse_kl reads rests that are rounding alone.
    for found in results:
        for name in ("per_token", "student_mass", "teacher_mass"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6)
        assert torch.equal(found.per_token, results[0].per_token)
    torch.testing.assert_close(gradient, whole.grad, rtol=1e-5, atol=2e-7)
    assert not gradient[[3, 5]].any()


@pytest.mark.parametrize(("kind", "beta"), CASES)
def test_in_float64_they_agree_to_rounding(kind: Any, beta: float) -> None:
    logits, teacher = _logits(4, torch.float64), teacher_topk(_logits(5, torch.float64), 6, rows_M=ROWS)
    whole = logits.clone().requires_grad_()
    expected = topk_divergence(whole, teacher, ROWS, kind=kind, beta=beta).per_token
    (expected * torch.linspace(0.5, 2.0, len(ROWS))).sum().backward()
    results, gradient = _parallel(logits, teacher, ROWS, SLICES["4 uneven"], kind=kind, beta=beta)
    torch.testing.assert_close(results[0].per_token, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient, whole.grad, rtol=1e-9, atol=1e-14)


def test_rows_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, teacher = _logits(6), teacher_topk(_logits(7), 4, rows_M=ROWS)
    results, gradient = _parallel(logits, teacher, ROWS, [16, 16])
    best = _parallel_topk(logits, 4, ROWS, [16, 16])
    monkeypatch.setattr(vocabulary_parallel, "_CHUNK", 2 * 16)
    in_chunks, same = _parallel(logits, teacher, ROWS, [16, 16])
    assert torch.equal(in_chunks[0].per_token, results[0].per_token) and torch.equal(same, gradient)
    assert torch.equal(_parallel_topk(logits, 4, ROWS, [16, 16])[1].log_probs, best[1].log_probs)


def test_bf16_logits_are_computed_in_float32() -> None:
    logits, teacher = _logits(8, torch.bfloat16), teacher_topk(_logits(9), 4, rows_M=ROWS)
    whole = logits.clone().requires_grad_()
    expected = topk_divergence(whole, teacher, ROWS).per_token
    (expected * torch.linspace(0.5, 2.0, len(ROWS))).sum().backward()
    results, gradient = _parallel(logits, teacher, ROWS, [5, 27])
    assert results[0].per_token.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    torch.testing.assert_close(results[0].per_token, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, whole.grad, rtol=0.01, atol=1e-6)


def test_a_padded_vocabulary_changes_nothing_and_is_never_among_the_best() -> None:
    """Masked columns at the end of the last slice, which holds fewer tokens than k."""
    logits = _logits(10)
    padded = torch.cat([logits, torch.full((7, 8), -torch.inf)], dim=-1)
    expected = teacher_topk(logits, 20, rows_M=ROWS)
    for found in _parallel_topk(padded, 20, ROWS, [30, 10]):
        assert torch.equal(found.ids, expected.ids)
    results, gradient = _parallel(padded, expected, ROWS, [30, 10])
    torch.testing.assert_close(results[0].per_token, topk_divergence(logits, expected, ROWS).per_token)
    assert not gradient[:, 32:].any() and gradient.isfinite().all()


def test_where_fewer_tokens_than_k_are_unmasked_masked_tokens_fill_up_and_no_filler_does() -> None:
    logits = torch.full((1, 8), -torch.inf)
    logits[0, 6] = 1.0
    for found in _parallel_topk(logits, 5, torch.tensor([0]), [2, 6]):
        ids = found.ids[0].tolist()
        assert ids[0] == 6 and len(set(ids)) == 5 and min(ids) >= 0
        assert found.log_probs[0].tolist() == [0.0] + [-torch.inf] * 4


def test_no_rows_give_nothing_and_a_connected_zero_gradient() -> None:
    logits, rows = _logits(11), torch.empty(0, dtype=torch.int64)
    teacher = _parallel_topk(logits, 3, rows, [16, 16])[0]
    assert teacher.ids.shape == (0, 3)
    results, gradient = _parallel(logits, teacher, rows, [16, 16])
    assert len(results[0].per_token) == 0 and torch.equal(gradient, torch.zeros(7, 32))


def test_second_derivative_is_refused() -> None:
    def own(rank: int, group: Any) -> None:
        logits = _logits(12).requires_grad_()
        teacher = teacher_topk(_logits(13), 3, rows_M=ROWS)
        found = parallel_divergence(logits, teacher, ROWS, VocabularySlice(0, 32, group))
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(found.per_token.sum(), logits, create_graph=True)

    on_ranks(1, own)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"part": VocabularySlice(20, 32, None)}, "ids 20 to 35 of a slice leave the vocabulary of 32"),
        ({"rows": torch.tensor([7])}, "rows span"),
        ({"rows": torch.tensor([1, 1])}, "must not repeat"),
        ({"rows": torch.tensor([1, 2])}, "2 rows but 1 teacher rows"),
        ({"kind": "l2"}, "kind='l2' is unknown"),
        ({"beta": 1.0}, "must lie in"),
        ({"ids": [[32]]}, r"teacher ids span \[32, 32\]"),
        ({"log_probs": [[float("nan")]]}, "are NaN"),
    ],
)
def test_bad_input_is_named_before_any_rank_waits(change: dict[str, Any], said: str) -> None:
    values = {"part": VocabularySlice(0, 32, None), "rows": torch.tensor([1]), "ids": [[3]], "log_probs": [[-0.1]]}
    values |= {"kind": "jsd", "beta": 0.5} | change
    teacher = TeacherTopK(torch.tensor(values["ids"]), torch.tensor(values["log_probs"]))
    options = {"kind": values["kind"], "beta": values["beta"]}
    with pytest.raises(ValueError, match=said):
        parallel_divergence(_logits(1)[:, :16], teacher, values["rows"], values["part"], **options)


def test_a_k_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match=r"topk=33 must lie in \[1, 32\]"):
        parallel_teacher_topk(_logits(1)[:, :16], 33, VocabularySlice(0, 32, None), ROWS)
