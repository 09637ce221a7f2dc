"""The softmax of selected rows of logits, without anything of size rows x vocabulary beside the logits.

Two ways to the same numbers. :class:`ChunkedRows` is PyTorch alone: it stores the softmax of a chunk of rows in a
workspace. :class:`KernelRows` reads the rows where they lie (CUDA with Triton, `softmax_kernels.py`).

Shape suffixes: see `teacher_topk.py`; B rows of one block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch

from recipe.hdpo.algorithm import softmax_kernels

# One fp32 chunk. On a CPU smaller ones stay in the cache, but cost a thread barrier more often; a GPU wants more rows
# at a time than it has multiprocessors.
_CHUNK_BYTES, _CHUNK_BYTES_ON_ACCELERATOR = 64 * 2**20, 512 * 2**20
# (rows, K) tensors alive at once in the arithmetic on the top-k; together they should take about one chunk.
_TEMPORARIES = 8


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the arithmetic: float64 stays float64, every other logits dtype is computed in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device. From the host to an accelerator it is copied without waiting for what that has to do."""
    if tensor.device == device or tensor.device.type != "cpu":
        return tensor.to(device)
    # A copy from pageable memory would wait for the accelerator.
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def softmax_rows(logits_TV: torch.Tensor, rows_N: torch.Tensor, chunk_size: int | None) -> SoftmaxRows:
    """The rows to walk over, by the kernels where these can run.

    Args:
        logits_TV: (T, V) logits.
        rows_N: (N,) int64 in [0, T), best on the host: reading them off an accelerator waits for all its work.
        chunk_size: rows per chunk; None picks it from V.

    Raises:
        ValueError: a chunk_size below 1.
    """
    by_kernel = softmax_kernels.can_run_on(logits_TV) and logits_TV.stride(-1) == 1
    return (KernelRows if by_kernel else ChunkedRows)(logits_TV, rows_N, chunk_size)


class SoftmaxRows(ABC):
    """Selected rows of logits: their log-probabilities at given ids, and the gradient through their softmax.

    Attributes:
        rows_N: (N,) int64 on the logits' device.
        dtype: of the arithmetic.
    """

    def __init__(self, logits_TV: torch.Tensor, rows_N: torch.Tensor, chunk_size: int | None) -> None:
        vocabulary = max(1, logits_TV.shape[1])
        if chunk_size is None:
            on_host = logits_TV.device.type == "cpu"
            chunk_size = max(1, (_CHUNK_BYTES if on_host else _CHUNK_BYTES_ON_ACCELERATOR) // (4 * vocabulary))
        if chunk_size < 1:
            raise ValueError(f"chunk_size={chunk_size} must be at least 1 row; None picks a good one.")
        self.logits_TV, self.rows_on_host = logits_TV, rows_N.tolist()
        self.rows_N = to_device(rows_N, logits_TV.device)
        self.dtype = working_dtype(logits_TV.dtype)
        self.chunk_size = min(chunk_size, max(1, len(rows_N)))

    @abstractmethod
    def log_softmax_at(
        self, block: slice, ids_BK: torch.Tensor, copy_to_TV: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """log q at the ids of a block of rows, (B, K), and the rows' logsumexp, (B,).

        Args:
            copy_to_TV: gets a copy of the rows, if it is given.
        """

    @abstractmethod
    def write_gradient(
        self,
        block: slice,
        log_z_B: torch.Tensor,
        ids_BK: torch.Tensor,
        on_s_BK: torch.Tensor,
        tail_B1: torch.Tensor,
        grad_TV: torch.Tensor,
    ) -> None:
        """grad[row] = tail * q, and on_s at the ids. The gradient may be the logits themselves, but no view of them."""

    def blocks(self, k: int) -> Iterator[slice]:
        """Spans of N for the arithmetic on (rows, K): far longer than a chunk, unless K is near V.

        Few large operations beat many small ones on a GPU (launches) and on busy CPU cores (thread barriers).
        """
        entries = self.chunk_size * self.logits_TV.shape[1]
        yield from _spans(0, len(self.rows_on_host), max(1, entries // (_TEMPORARIES * k)))

    def chunks(self, block: slice) -> Iterator[tuple[slice, slice | torch.Tensor]]:
        """The chunks of a block: where each lies in N, and how to index it in T.

        Consecutive rows are indexed by a slice, which makes a view and no copy; others by a tensor.
        """
        for span in _spans(block.start, block.stop, self.chunk_size):
            first = self.rows_on_host[span.start]
            after = first + span.stop - span.start
            is_consecutive = self.rows_on_host[span] == list(range(first, after))
            yield span, slice(first, after) if is_consecutive else self.rows_N[span]

    def gather(self, block: slice, ids_BK: torch.Tensor) -> torch.Tensor:
        """logits[row, id] for each row of a block and its ids, (B, K)."""
        return self.logits_TV[self.rows_N[block, None], ids_BK].to(self.dtype)


class KernelRows(SoftmaxRows):
    """Every row is read once forward, and read and written once backward."""

    def log_softmax_at(self, block, ids_BK, copy_to_TV=None):
        log_z_B = softmax_kernels.row_logsumexp(self.logits_TV, self.rows_N[block], copy_to_TV)
        return self.gather(block, ids_BK) - log_z_B[:, None], log_z_B

    def write_gradient(self, block, log_z_B, ids_BK, on_s_BK, tail_B1, grad_TV):
        rows_B = self.rows_N[block]
        softmax_kernels.scale_softmax(self.logits_TV, rows_B, log_z_B, tail_B1[:, 0].contiguous(), grad_TV)
        grad_TV[rows_B[:, None], ids_BK] = on_s_BK.to(grad_TV.dtype)


class ChunkedRows(SoftmaxRows):
    """The softmax of a chunk of rows at a time, in a workspace that is made once.

    Memory fetched anew for each chunk costs more in page faults than the arithmetic.
    """

    def __init__(self, logits_TV: torch.Tensor, rows_N: torch.Tensor, chunk_size: int | None) -> None:
        super().__init__(logits_TV, rows_N, chunk_size)
        self._result = self._workspace()
        self._converted = self._result if logits_TV.dtype == self.dtype else self._workspace()

    def log_softmax_at(self, block, ids_BK, copy_to_TV=None):
        log_q_BK = torch.empty(ids_BK.shape, dtype=self.dtype, device=ids_BK.device)
        for span, rows in self.chunks(block):
            chunk_CV, within = self.logits_TV[rows], _relative(span, block)
            if copy_to_TV is not None:
                copy_to_TV[rows] = chunk_CV
            converted = self._convert(chunk_CV)
            log_q_CV = torch.log_softmax(converted, dim=-1, out=self._result[: len(chunk_CV)])
            torch.gather(log_q_CV, -1, ids_BK[within], out=log_q_BK[within])
        return log_q_BK, self._log_normaliser(block, ids_BK, log_q_BK)

    def write_gradient(self, block, log_z_B, ids_BK, on_s_BK, tail_B1, grad_TV):
        in_place = grad_TV is self.logits_TV
        for span, rows in self.chunks(block):
            chunk_CV, within = self.logits_TV[rows], _relative(span, block)
            # Straight into the gradient where that is a view, of the same dtype, that is not the logits.
            direct = isinstance(rows, slice) and grad_TV.dtype == self.dtype and not in_place
            out_CV = grad_TV[rows] if direct else self._result[: len(chunk_CV)]
            grad_CV = torch.softmax(self._convert(chunk_CV), dim=-1, out=out_CV)
            grad_CV.mul_(tail_B1[within]).scatter_(-1, ids_BK[within], on_s_BK[within])
            if not direct:
                grad_TV[rows] = grad_CV if isinstance(rows, slice) else grad_CV.to(grad_TV.dtype)

    def _log_normaliser(self, block: slice, ids_BK: torch.Tensor, log_q_BK: torch.Tensor) -> torch.Tensor:
        """logsumexp of each row's logits, (B,), read off the most likely of its ids.

        0, never looked at, if the logits of all of them are -inf.
        """
        log_q_B1, best_B1 = log_q_BK.max(dim=-1, keepdim=True)
        log_z_B1 = self.gather(block, ids_BK.gather(-1, best_B1)) - log_q_B1
        return torch.where(log_q_B1.isneginf(), 0.0, log_z_B1)[:, 0]

    def _convert(self, chunk_CV: torch.Tensor) -> torch.Tensor:
        return chunk_CV if chunk_CV.dtype == self.dtype else self._converted[: len(chunk_CV)].copy_(chunk_CV)

    def _workspace(self) -> torch.Tensor:
        shape = (self.chunk_size, self.logits_TV.shape[1])
        return torch.empty(shape, dtype=self.dtype, device=self.logits_TV.device)


def _spans(start: int, stop: int, size: int) -> Iterator[slice]:
    for begin in range(start, stop, size):
        yield slice(begin, min(begin + size, stop))


def _relative(span: slice, block: slice) -> slice:
    return slice(span.start - block.start, span.stop - block.start)
