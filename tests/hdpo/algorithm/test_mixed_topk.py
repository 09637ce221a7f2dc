"""The teacher between two others, against interpolated log-probabilities over the whole vocabulary."""

from __future__ import annotations

import pytest
import torch

from recipe.hdpo.algorithm.mixed_topk import mixed_topk
from recipe.hdpo.algorithm.teacher_topk import teacher_topk

ROWS = torch.tensor([5, 0, 3, 3])


def _two(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [3.0 * torch.randn(6, 11, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2)]


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
@pytest.mark.parametrize("k", [1, 4, None])
@pytest.mark.parametrize("weight", [0.3, 0.5, 0.9])
def test_it_is_the_top_k_of_interpolated_log_probabilities_normalised_again(weight, k, chunk_size) -> None:
    first, second = _two()
    mixed = (1 - weight) * first.log_softmax(-1) + weight * second.log_softmax(-1)
    expected = mixed.log_softmax(-1)[ROWS].sort(dim=-1, descending=True)
    found = mixed_topk(first, second, k, weight=weight, rows_M=ROWS, chunk_size=chunk_size)
    assert torch.equal(found.ids, expected.indices[:, :k])
    torch.testing.assert_close(found.log_probs, expected.values[:, :k])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_at_its_ends_it_is_either_teacher_bit_for_bit(dtype: torch.dtype) -> None:
    first, second = _two(dtype)
    for weight, alone in ((0.0, first), (1.0, second)):
        found, expected = mixed_topk(first, second, 4, weight=weight), teacher_topk(alone, 4)
        assert torch.equal(found.ids, expected.ids) and torch.equal(found.log_probs, expected.log_probs)
    near = mixed_topk(first, second, 4, weight=1e-9)
    torch.testing.assert_close(near.log_probs, teacher_topk(first, 4).log_probs)


def test_bf16_logits_are_interpolated_in_float32() -> None:
    first, second = _two(torch.bfloat16)
    found = mixed_topk(first, second, 4, weight=0.3)
    expected = teacher_topk(0.7 * first.double() + 0.3 * second.double(), 4)
    assert found.log_probs.dtype == torch.float32
    torch.testing.assert_close(found.log_probs.double(), expected.log_probs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight", [0.3, 0.5, 0.9])
def test_a_column_that_either_teacher_masks_has_no_probability(weight: float) -> None:
    first, second = _two()
    for teachers in ((first, second), (first,), (second,)):
        masked = [logits.clone() for logits in (first, second)]
        for logits, name in zip(masked, (first, second), strict=True):
            if any(name is teacher for teacher in teachers):
                logits[:, 2] = -torch.inf
        found = mixed_topk(*masked, 11, weight=weight)
        rest = [torch.cat([logits[:, :2], logits[:, 3:]], dim=1) for logits in (first, second)]
        expected = mixed_topk(*rest, 10, weight=weight)
        torch.testing.assert_close(found.log_probs[:, :10], expected.log_probs)
        assert torch.all(found.ids[:, 10] == 2) and torch.all(found.log_probs[:, 10] == -torch.inf)


def test_no_rows_give_an_empty_result() -> None:
    found = mixed_topk(*_two(), 4, weight=0.5, rows_M=torch.empty(0, dtype=torch.int64))
    assert found.ids.shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weight": 1.5}, r"weight=1.5 must lie in \[0, 1\]"),
        ({"second_NV": torch.zeros(5, 11)}, "must read the same tokens"),
        ({"k": 12}, "topk=12"),
        ({"rows_M": torch.tensor([6])}, "rows span"),
    ],
)
def test_bad_input_is_named(change, said: str) -> None:
    first, second = _two()
    values = {"second_NV": second, "k": 4, "weight": 0.5, "rows_M": ROWS} | change
    with pytest.raises(ValueError, match=said):
        mixed_topk(first, values.pop("second_NV"), values.pop("k"), **values)
