"""The teacher's side of the token-level divergence: its k most likely tokens, row by row.

    S_n = ids of the k largest teacher logits,    log p_v = z_v - logsumexp(z)  for v in S_n

The log-probabilities are those of the teacher's full softmax; whoever uses them renormalises. Rows are worked
through in chunks, so nothing of size rows x vocabulary is made beside the logits that the caller holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from recipe.hdpo.algorithm.softmax_rows import softmax_rows, to_device


@dataclass(frozen=True)
class TeacherTopK:
    """The teacher's k most likely tokens for M positions, most likely first. Never carries a gradient.

    Attributes:
        ids: (M, K) int64, token ids, distinct within a row.
        log_probs: (M, K) float32 (float64 if the logits were), from the teacher's *full* softmax.
        response_log_probs: (M,) log-probabilities of the tokens that the response has at these positions, of the same
            softmax; None where these were not named. They stay where they are when the rest is moved by :meth:`to`.

    Raises:
        ValueError: the two shapes differ, or the dtypes are not int64 and a floating one.
    """

    ids: torch.Tensor
    log_probs: torch.Tensor
    response_log_probs: torch.Tensor | None = None

    def to(self, device: torch.device) -> TeacherTopK:
        """The same rows on another device; see :func:`to_device`."""
        return replace(self, ids=to_device(self.ids, device), log_probs=to_device(self.log_probs, device))

    def to_host(self) -> TeacherTopK:
        """The same rows in the host's memory. From CUDA they are copied without waiting: synchronise before reading."""
        if not self.ids.is_cuda:
            on_host, at_response = self.to(torch.device("cpu")), self.response_log_probs
            return on_host if at_response is None else replace(on_host, response_log_probs=at_response.cpu())
        parts = (self.ids, self.log_probs, self.response_log_probs)
        return TeacherTopK(
            *(
                None if t is None else torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True)
                for t in parts
            )  # type: ignore[arg-type]
        )

    def __post_init__(self) -> None:
        if self.ids.dim() != 2 or self.ids.shape[1] < 1 or self.ids.shape != self.log_probs.shape:
            raise ValueError(
                f"TeacherTopK: ids {tuple(self.ids.shape)} and log_probs {tuple(self.log_probs.shape)} must "
                "both be (M, K), K >= 1; build them with teacher_topk()."
            )
        if self.ids.dtype != torch.int64 or not self.log_probs.is_floating_point():
            raise ValueError(
                f"TeacherTopK: ids must be int64 and log_probs floating, got {self.ids.dtype} and "
                f"{self.log_probs.dtype}; build them with teacher_topk()."
            )


@torch.no_grad()
def teacher_topk(
    logits_NV: torch.Tensor,
    k: int | None,
    *,
    rows_M: torch.Tensor | None = None,
    labels_M: torch.Tensor | None = None,
    chunk_size: int | None = None,
) -> TeacherTopK:
    """The k most likely tokens of each row, with their log-probabilities under the full softmax.

    Args:
        logits_NV: (N, V) teacher logits, any floating dtype; computed in float32 (float64 for float64).
        k: how many tokens to keep, 1 <= k <= V. None keeps the whole vocabulary, sorted, at 12 bytes per row
            and token: meant for small vocabularies.
        rows_M: (M,) int64, the rows wanted, in this order; None for all. They are never copied all at once. Best on the
            host: reading them off an accelerator waits for all its work.
        labels_M: (M,) int64 on the logits' device, the token of each row whose log-probability is wanted too, in or out
            of the top-k.
        chunk_size: rows per chunk; None picks it from V. It changes memory and speed only.

    Returns:
        TeacherTopK of M rows. Ties at the k-th place are broken as torch.topk breaks them.

    Raises:
        ValueError: logits that are not (N, V), k outside [1, V], or rows outside [0, N).
    """
    if logits_NV.dim() != 2:
        raise ValueError(f"teacher logits must be (N, V), got {tuple(logits_NV.shape)}; drop the batch axis.")
    n_rows, vocabulary = logits_NV.shape
    k = vocabulary if k is None else k
    if not 1 <= k <= vocabulary:
        raise ValueError(f"topk={k} must lie in [1, {vocabulary}], the teacher's vocabulary; lower topk.")
    if rows_M is None:
        rows_M = torch.arange(n_rows)
    check_rows(rows_M, n_rows)
    selected = softmax_rows(logits_NV, rows_M, chunk_size)
    ids = torch.empty(len(rows_M), k, dtype=torch.int64, device=logits_NV.device)
    log_probs = torch.empty(len(rows_M), k, dtype=selected.dtype, device=logits_NV.device)
    at_labels = None if labels_M is None else torch.empty(len(rows_M), dtype=selected.dtype, device=logits_NV.device)
    for span, rows in selected.chunks(slice(0, len(rows_M))):
        ids[span] = logits_NV[rows].topk(k, dim=-1).indices
        log_probs[span], log_z = selected.log_softmax_at(span, ids[span])
        if labels_M is not None and at_labels is not None:
            at_labels[span] = selected.gather(span, labels_M[span, None])[:, 0] - log_z
    return TeacherTopK(ids=ids, log_probs=log_probs, response_log_probs=at_labels)


def concatenated(parts: Sequence[TeacherTopK]) -> TeacherTopK:
    """The rows of several, one after the other, where they are; at least one part, all with response tokens or none."""
    of_responses = [part.response_log_probs for part in parts if part.response_log_probs is not None]
    assert len(of_responses) in (0, len(parts)), "some rows have the response's log-probabilities, and others have not"
    return TeacherTopK(
        ids=torch.cat([part.ids for part in parts]),
        log_probs=torch.cat([part.log_probs for part in parts]),
        response_log_probs=torch.cat(of_responses) if of_responses else None,
    )


def check_rows(rows_M: torch.Tensor, n_rows: int, *, distinct: bool = False) -> None:
    """Refuse rows that are not int64, leave [0, n_rows) or, if they must be distinct, repeat."""
    if rows_M.dim() != 1 or rows_M.dtype != torch.int64:
        raise ValueError(f"rows must be 1-D and int64, got {tuple(rows_M.shape)} of {rows_M.dtype}.")
    if len(rows_M) == 0:
        return
    low, high = value_range(rows_M)
    if low < 0 or high >= n_rows:
        raise ValueError(f"rows span [{low}, {high}], but the logits have {n_rows} rows, counted from 0.")
    # Rows in ascending order, the usual case, need no sort.
    if distinct and not bool((rows_M.diff() > 0).all()) and len(torch.unique(rows_M)) != len(rows_M):
        raise ValueError("rows must not repeat: compare a position once and weight its divergence afterwards.")


def value_range(values: torch.Tensor) -> tuple[int, int]:
    """Least and greatest of some integers, read in one go."""
    low, high = torch.stack(torch.aminmax(values)).tolist()
    return low, high
