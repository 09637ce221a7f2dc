"""The top-k of a teacher between two others: their log-probabilities interpolated, and normalised again.

    log p = (1 - w) log p_1 + w log p_2 - ln sum_v p_1v^(1-w) p_2v^w

Normalisers are constants of a row, so this is the softmax of (1 - w) z_1 + w z_2.
"""

from __future__ import annotations

import torch

from recipe.hdpo.algorithm.softmax_rows import to_device, working_dtype
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, check_rows, concatenated, teacher_topk

# Entries of logits that are interpolated at a time.
_CHUNK = 2**24


@torch.no_grad()
def mixed_topk(
    first_NV: torch.Tensor,
    second_NV: torch.Tensor,
    k: int | None,
    *,
    weight: float,
    rows_M: torch.Tensor | None = None,
    labels_M: torch.Tensor | None = None,
    chunk_size: int | None = None,
) -> TeacherTopK:
    """The k most likely tokens of the mixture at each row, with their log-probabilities under its full softmax.

    Args:
        first_NV, second_NV: (N, V) logits of the two teachers, any floating dtype; computed in float32 (float64 for
            float64).
        k, rows_M, labels_M: as for :func:`teacher_topk`.
        weight: w, of the second teacher, in [0, 1]. At an end the result is that teacher's own, bit for bit.
        chunk_size: rows that are interpolated at a time; None picks it from V.

    Raises:
        ValueError: shapes that differ, a weight outside [0, 1], or what :func:`teacher_topk` refuses.
    """
    if first_NV.shape != second_NV.shape:
        raise ValueError(
            f"two teachers of one mixture must read the same tokens, but their logits are {tuple(first_NV.shape)} and "
            f"{tuple(second_NV.shape)}."
        )
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight={weight} must lie in [0, 1], from the first teacher to the second.")
    if weight in (0.0, 1.0):
        alone_NV = second_NV if weight else first_NV
        return teacher_topk(alone_NV, k, rows_M=rows_M, labels_M=labels_M, chunk_size=chunk_size)
    rows_M = torch.arange(len(first_NV)) if rows_M is None else rows_M
    check_rows(rows_M, len(first_NV))
    rows_M, dtype = to_device(rows_M, first_NV.device), working_dtype(first_NV.dtype)
    size = chunk_size or max(1, _CHUNK // max(1, first_NV.shape[1]))
    parts = []
    # A chunk of no rows, so that k is checked for none too.
    for begin in range(0, len(rows_M), size) or [0]:
        rows = rows_M[begin : begin + size]
        first, second = first_NV[rows].to(dtype), second_NV[rows].to(dtype)
        # Not by lerp, which makes NaN of a column that is masked (-inf) in both; masked in one, it is in the mixture.
        mixed = torch.where(first == second, first, (1.0 - weight) * first + weight * second)
        labels = None if labels_M is None else labels_M[begin : begin + size]
        parts.append(teacher_topk(mixed, k, labels_M=labels, chunk_size=chunk_size))
    return concatenated(parts)
