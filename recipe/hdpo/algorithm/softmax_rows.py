"""The softmax of selected rows of logits, without anything of size rows x vocabulary beside the logits.

Two ways to the same numbers. :class:`ChunkedRows` is PyTorch alone: it stores the softmax of a chunk of rows in a
workspace. :class:`KernelRows` reads the rows where they lie (CUDA with Triton, ``softmax_kernels.py``).
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


def softmax_rows(logits_NV: torch.Tensor, rows_M: torch.Tensor, chunk_size: int | None) -> SoftmaxRows:
    """The rows to walk over, by the kernels where these can run.

    Args:
        logits_NV: (N, V) logits.
        rows_M: (M,) int64 in [0, N), best on the host: reading them off an accelerator waits for all its work.
        chunk_size: rows per chunk; None picks it from V.

    Raises:
        ValueError: a chunk_size below 1.
    """
    by_kernel = softmax_kernels.can_run_on(logits_NV) and logits_NV.stride(-1) == 1
    return (KernelRows if by_kernel else ChunkedRows)(logits_NV, rows_M, chunk_size)


class SoftmaxRows(ABC):
    """Selected rows of logits: their log-probabilities at given ids, and the gradient through their softmax.

    Attributes:
        rows_M: (M,) int64 on the logits' device.
        dtype: of the arithmetic.
    """

    def __init__(self, logits_NV: torch.Tensor, rows_M: torch.Tensor, chunk_size: int | None) -> None:
        vocabulary = max(1, logits_NV.shape[1])
        if chunk_size is None:
            on_host = logits_NV.device.type == "cpu"
            chunk_size = max(1, (_CHUNK_BYTES if on_host else _CHUNK_BYTES_ON_ACCELERATOR) // (4 * vocabulary))
        if chunk_size < 1:
            raise ValueError(f"chunk_size={chunk_size} must be at least 1 row; None picks a good one.")
        self.logits_NV, self.rows_on_host = logits_NV, rows_M.tolist()
        self.rows_M = to_device(rows_M, logits_NV.device)
        self.dtype = working_dtype(logits_NV.dtype)
        self.chunk_size = min(chunk_size, max(1, len(rows_M)))

    @abstractmethod
    def log_softmax_at(
        self, block: slice, ids_DK: torch.Tensor, copy_to_NV: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """log q at the ids of a block of rows, (D, K), and the rows' logsumexp, (D,).

        Args:
            copy_to_NV: gets a copy of the rows, if it is given.
        """

    @abstractmethod
    def normaliser(self, block: slice, with_entropy: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """logsumexp of a block of rows, (D,), and on request the entropy of their softmax in nats, (D,)."""

    @abstractmethod
    def write_gradient(
        self,
        block: slice,
        log_z_D: torch.Tensor,
        ids_DK: torch.Tensor,
        on_s_DK: torch.Tensor,
        tail_D1: torch.Tensor,
        grad_NV: torch.Tensor,
        slope_D1: torch.Tensor | None = None,
    ) -> None:
        """grad[row] = (tail + slope ln q) q, and on_s at the ids; without a slope, tail * q.

        The gradient may be the logits themselves, but no view of them.
        """

    def blocks(self, k: int) -> Iterator[slice]:
        """Spans of M for the arithmetic on (rows, K): far longer than a chunk, unless K is near V.

        Few large operations beat many small ones on a GPU (launches) and on busy CPU cores (thread barriers).
        """
        entries = self.chunk_size * self.logits_NV.shape[1]
        yield from _spans(0, len(self.rows_on_host), max(1, entries // (_TEMPORARIES * k)))

    def chunks(self, block: slice) -> Iterator[tuple[slice, slice | torch.Tensor]]:
        """The chunks of a block: where each lies in M, and how to index it in N.

        Consecutive rows are indexed by a slice, which makes a view and no copy; others by a tensor.
        """
        for span in _spans(block.start, block.stop, self.chunk_size):
            first = self.rows_on_host[span.start]
            after = first + span.stop - span.start
            is_consecutive = self.rows_on_host[span] == list(range(first, after))
            yield span, slice(first, after) if is_consecutive else self.rows_M[span]

    def gather(self, block: slice, ids_DK: torch.Tensor) -> torch.Tensor:
        """logits[row, id] for each row of a block and its ids, (D, K)."""
        return self.logits_NV[self.rows_M[block, None], ids_DK].to(self.dtype)


class KernelRows(SoftmaxRows):
    """Every row is read once forward, and read and written once backward."""

    def log_softmax_at(self, block, ids_DK, copy_to_NV=None):
        log_z_D = softmax_kernels.row_logsumexp(self.logits_NV, self.rows_M[block], copy_to_NV)
        return self.gather(block, ids_DK) - log_z_D[:, None], log_z_D

    def normaliser(self, block, with_entropy):
        rows_D = self.rows_M[block]
        entropy_D = torch.empty(len(rows_D), dtype=self.dtype, device=rows_D.device) if with_entropy else None
        return softmax_kernels.row_logsumexp(self.logits_NV, rows_D, entropy_M=entropy_D), entropy_D

    def write_gradient(self, block, log_z_D, ids_DK, on_s_DK, tail_D1, grad_NV, slope_D1=None):
        rows_D = self.rows_M[block]
        slope_D = None if slope_D1 is None else slope_D1[:, 0].contiguous()
        softmax_kernels.scale_softmax(self.logits_NV, rows_D, log_z_D, tail_D1[:, 0].contiguous(), grad_NV, slope_D)
        grad_NV[rows_D[:, None], ids_DK] = on_s_DK.to(grad_NV.dtype)


class ChunkedRows(SoftmaxRows):
    """The softmax of a chunk of rows at a time, in a workspace that is made once.

    Memory fetched anew for each chunk costs more in page faults than the arithmetic.
    """

    def __init__(self, logits_NV: torch.Tensor, rows_M: torch.Tensor, chunk_size: int | None) -> None:
        super().__init__(logits_NV, rows_M, chunk_size)
        self._result = self._workspace()
        self._converted = self._result if logits_NV.dtype == self.dtype else self._workspace()

    def log_softmax_at(self, block, ids_DK, copy_to_NV=None):
        log_q_DK = torch.empty(ids_DK.shape, dtype=self.dtype, device=ids_DK.device)
        for span, rows in self.chunks(block):
            chunk_CV, within = self.logits_NV[rows], _relative(span, block)
            if copy_to_NV is not None:
                copy_to_NV[rows] = chunk_CV
            converted = self._convert(chunk_CV)
            log_q_CV = torch.log_softmax(converted, dim=-1, out=self._result[: len(chunk_CV)])
            torch.gather(log_q_CV, -1, ids_DK[within], out=log_q_DK[within])
        return log_q_DK, self._log_normaliser(block, ids_DK, log_q_DK)

    def normaliser(self, block, with_entropy):
        log_z_D = torch.empty(block.stop - block.start, dtype=self.dtype, device=self.logits_NV.device)
        entropy_D = torch.empty_like(log_z_D) if with_entropy else None
        for span, rows in self.chunks(block):
            within, chunk_CV = _relative(span, block), self._convert(self.logits_NV[rows])
            log_q_CV = torch.log_softmax(chunk_CV, dim=-1, out=self._result[: len(chunk_CV)])
            # At the most likely token, where the difference rounds least.
            log_z_D[within] = chunk_CV.amax(-1) - log_q_CV.amax(-1)
            if entropy_D is not None:
                entropy_D[within] = torch.special.entr(log_q_CV.exp_(), out=log_q_CV).sum(-1)
        return log_z_D, entropy_D

    def write_gradient(self, block, log_z_D, ids_DK, on_s_DK, tail_D1, grad_NV, slope_D1=None):
        in_place = grad_NV is self.logits_NV
        for span, rows in self.chunks(block):
            chunk_CV, within = self.logits_NV[rows], _relative(span, block)
            # Straight into the gradient where that is a view, of the same dtype, that is not the logits.
            direct = isinstance(rows, slice) and grad_NV.dtype == self.dtype and not in_place
            out_CV = grad_NV[rows] if direct else self._result[: len(chunk_CV)]
            grad_CV = torch.softmax(self._convert(chunk_CV), dim=-1, out=out_CV)
            factor = tail_D1[within] if slope_D1 is None else tail_D1[within] + slope_D1[within] * _log_or_0(grad_CV)
            grad_CV.mul_(factor).scatter_(-1, ids_DK[within], on_s_DK[within])
            if not direct:
                grad_NV[rows] = grad_CV if isinstance(rows, slice) else grad_CV.to(grad_NV.dtype)

    def _log_normaliser(self, block: slice, ids_DK: torch.Tensor, log_q_DK: torch.Tensor) -> torch.Tensor:
        """logsumexp of each row's logits, (D,), read off the most likely of its ids.

        0, never looked at, if the logits of all of them are -inf.
        """
        log_q_D1, best_D1 = log_q_DK.max(dim=-1, keepdim=True)
        log_z_D1 = self.gather(block, ids_DK.gather(-1, best_D1)) - log_q_D1
        return torch.where(log_q_D1.isneginf(), 0.0, log_z_D1)[:, 0]

    def _convert(self, chunk_CV: torch.Tensor) -> torch.Tensor:
        return chunk_CV if chunk_CV.dtype == self.dtype else self._converted[: len(chunk_CV)].copy_(chunk_CV)

    def _workspace(self) -> torch.Tensor:
        shape = (self.chunk_size, self.logits_NV.shape[1])
        return torch.empty(shape, dtype=self.dtype, device=self.logits_NV.device)


def _log_or_0(q: torch.Tensor) -> torch.Tensor:
    """ln q, and 0 where q is 0, since q ln q is what is wanted."""
    return torch.where(q > 0, q.log(), 0.0)


def _spans(start: int, stop: int, size: int) -> Iterator[slice]:
    for begin in range(start, stop, size):
        yield slice(begin, min(begin + size, stop))


def _relative(span: slice, block: slice) -> slice:
    return slice(span.start - block.start, span.stop - block.start)
