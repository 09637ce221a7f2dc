"""The teacher's side of the token-level divergence: its k most likely tokens, row by row.

    S_n = ids of the k largest teacher logits,    log p_v = z_v - logsumexp(z)  for v in S_n

The log-probabilities are those of the teacher's full softmax; whoever uses them renormalises. Rows are worked
through in chunks, so nothing of size rows x vocabulary is made beside the logits that the caller holds.

Shape suffixes, here and in `divergence.py`: T rows of logits, N rows that are compared, C rows of one chunk,
K the teacher's top-k, V the vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# One fp32 chunk. Smaller ones stay in a CPU's cache, but cost a kernel launch or a thread barrier more often.
_CHUNK_BYTES = 64 * 2**20
# (rows, K) tensors alive at once in the arithmetic on the top-k; together they should take about one chunk.
_TEMPORARIES = 8


@dataclass(frozen=True)
class TeacherTopK:
    """The teacher's k most likely tokens for N positions, most likely first. Never carries a gradient.

    Attributes:
        ids: (N, K) int64, token ids, distinct within a row.
        log_probs: (N, K) float32 (float64 if the logits were), from the teacher's *full* softmax.

    Raises:
        ValueError: the two shapes differ, or the dtypes are not int64 and a floating one.
    """

    ids: torch.Tensor
    log_probs: torch.Tensor

    def __post_init__(self) -> None:
        if self.ids.dim() != 2 or self.ids.shape[1] < 1 or self.ids.shape != self.log_probs.shape:
            raise ValueError(
                f"TeacherTopK: ids {tuple(self.ids.shape)} and log_probs {tuple(self.log_probs.shape)} must "
                "both be (N, K), K >= 1; build them with teacher_topk()."
            )
        if self.ids.dtype != torch.int64 or not self.log_probs.is_floating_point():
            raise ValueError(
                f"TeacherTopK: ids must be int64 and log_probs floating, got {self.ids.dtype} and "
                f"{self.log_probs.dtype}; build them with teacher_topk()."
            )


@torch.no_grad()
def teacher_topk(
    logits_TV: torch.Tensor,
    k: int | None,
    *,
    rows_N: torch.Tensor | None = None,
    chunk_size: int | None = None,
) -> TeacherTopK:
    """The k most likely tokens of each row, with their log-probabilities under the full softmax.

    Args:
        logits_TV: (T, V) teacher logits, any floating dtype; computed in float32 (float64 for float64).
        k: how many tokens to keep, 1 <= k <= V. None keeps the whole vocabulary, sorted, at 12 bytes per row
            and token: meant for small vocabularies.
        rows_N: (N,) int64, the rows wanted, in this order; None for all. They are never copied all at once.
        chunk_size: rows per chunk; None picks it from V. It changes memory and speed only.

    Returns:
        TeacherTopK of N rows. Ties at the k-th place are broken as torch.topk breaks them.

    Raises:
        ValueError: logits that are not (T, V), k outside [1, V], or rows outside [0, T).
    """
    if logits_TV.dim() != 2:
        raise ValueError(f"teacher logits must be (T, V), got {tuple(logits_TV.shape)}; drop the batch axis.")
    n_rows, vocabulary = logits_TV.shape
    k = vocabulary if k is None else k
    if not 1 <= k <= vocabulary:
        raise ValueError(f"topk={k} must lie in [1, {vocabulary}], the teacher's vocabulary; lower topk.")
    if rows_N is None:
        rows_N = torch.arange(n_rows, device=logits_TV.device)
    check_rows(rows_N, n_rows)
    chunks = RowChunks(logits_TV, rows_N, chunk_size)
    ids = torch.empty(len(rows_N), k, dtype=torch.int64, device=logits_TV.device)
    log_probs = torch.empty(len(rows_N), k, dtype=chunks.dtype, device=logits_TV.device)
    for span, rows in chunks.within(slice(0, len(rows_N))):
        chunk = logits_TV[rows]
        ids[span] = chunk.topk(k, dim=-1).indices
        log_probs[span] = chunks.log_softmax(chunk).gather(-1, ids[span])
    return TeacherTopK(ids=ids, log_probs=log_probs)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the arithmetic: float64 stays float64, every other logits dtype is computed in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_rows(rows_N: torch.Tensor, n_rows: int, *, distinct: bool = False) -> None:
    """Refuse rows that are not int64, leave [0, n_rows) or, if they must be distinct, repeat."""
    if rows_N.dim() != 1 or rows_N.dtype != torch.int64:
        raise ValueError(f"rows must be 1-D and int64, got {tuple(rows_N.shape)} of {rows_N.dtype}.")
    if len(rows_N) == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(rows_N))
    if low < 0 or high >= n_rows:
        raise ValueError(f"rows span [{low}, {high}], but the logits have {n_rows} rows, counted from 0.")
    if distinct and len(torch.unique(rows_N)) != len(rows_N):
        raise ValueError("rows must not repeat: compare a position once and weight its divergence afterwards.")


class RowChunks:
    """The rows of logits that a call compares, chunk by chunk, with the workspace for their softmax.

    The workspace is made once: memory fetched anew for each chunk costs more in page faults than the arithmetic.

    Args:
        logits_TV: (T, V) logits.
        rows_N: (N,) the rows to walk over.
        chunk_size: rows per chunk; None picks it so that a chunk takes 64 MiB in float32.

    Raises:
        ValueError: a chunk_size below 1.
    """

    def __init__(self, logits_TV: torch.Tensor, rows_N: torch.Tensor, chunk_size: int | None) -> None:
        vocabulary = max(1, logits_TV.shape[1])
        if chunk_size is None:
            chunk_size = max(1, _CHUNK_BYTES // (4 * vocabulary))
        if chunk_size < 1:
            raise ValueError(f"chunk_size={chunk_size} must be at least 1 row; None picks a good one.")
        self.logits_TV, self.rows_N, self.rows_on_host = logits_TV, rows_N, rows_N.tolist()
        self.dtype = working_dtype(logits_TV.dtype)
        self.chunk_size = min(chunk_size, max(1, len(rows_N)))
        self._result = self._workspace()
        self._converted = self._result if logits_TV.dtype == self.dtype else self._workspace()

    def blocks(self, k: int) -> Iterator[slice]:
        """Spans of N for the arithmetic on (rows, K): far longer than a chunk, unless K is near V.

        Few large operations beat many small ones on a GPU (launches) and on busy CPU cores (thread barriers).
        """
        entries = self.chunk_size * self.logits_TV.shape[1]
        yield from self._spans(0, len(self.rows_N), max(1, entries // (_TEMPORARIES * k)))

    def within(self, block: slice) -> Iterator[tuple[slice, slice | torch.Tensor]]:
        """The chunks of a block: where each lies in the block, and how to index it in T.

        Consecutive rows are indexed by a slice, which makes a view and no copy; others by a tensor.
        """
        for span in self._spans(block.start, block.stop, self.chunk_size):
            first = self.rows_on_host[span.start]
            after = first + span.stop - span.start
            is_consecutive = self.rows_on_host[span] == list(range(first, after))
            rows = slice(first, after) if is_consecutive else self.rows_N[span]
            yield slice(span.start - block.start, span.stop - block.start), rows

    def log_softmax(self, chunk_CV: torch.Tensor) -> torch.Tensor:
        """(C, V) in the working dtype; valid until the next call."""
        chunk_CV = self._convert(chunk_CV)
        return torch.log_softmax(chunk_CV, dim=-1, out=self._result[: len(chunk_CV)])

    def softmax(self, chunk_CV: torch.Tensor, out_CV: torch.Tensor | None = None) -> torch.Tensor:
        """(C, V) in the working dtype, in `out_CV` if it is given; else valid until the next call."""
        chunk_CV = self._convert(chunk_CV)
        return torch.softmax(chunk_CV, dim=-1, out=self._result[: len(chunk_CV)] if out_CV is None else out_CV)

    def _convert(self, chunk_CV: torch.Tensor) -> torch.Tensor:
        return chunk_CV if chunk_CV.dtype == self.dtype else self._converted[: len(chunk_CV)].copy_(chunk_CV)

    def _workspace(self) -> torch.Tensor:
        shape = (self.chunk_size, self.logits_TV.shape[1])
        return torch.empty(shape, dtype=self.dtype, device=self.logits_TV.device)

    @staticmethod
    def _spans(start: int, stop: int, size: int) -> Iterator[slice]:
        for begin in range(start, stop, size):
            yield slice(begin, min(begin + size, stop))
