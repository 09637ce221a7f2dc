"""The logits of a model's head, a chunk of tokens at a time, in one workspace; and the gradient of the head's weight.

    z = h W^T / temperature,    dW = sum over chunks of dz^T h

N tokens, H hidden states, V words, C tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch

from recipe.hdpo.algorithm.softmax_rows import softmax_rows, working_dtype

# One chunk of logits. A GPU wants long chunks: each adds V x H numbers to the weight's gradient.
_CHUNK_BYTES, _CHUNK_BYTES_ON_ACCELERATOR = 64 * 2**20, 512 * 2**20
# Tiles of a matrix product.
_TILE = 128


class HeadChunks:
    """Chunks of the logits of N tokens.

    Args:
        hidden_NH, weight_VH: of one dtype, the dtype of the logits.
        temperature_N: of each token, divides its logits; None for 1.
        chunk_size: tokens per chunk; None picks it from V.

    Attributes:
        logits_CV: the workspace; what :meth:`load` puts there may be overwritten.
        rows: its softmax (:mod:`recipe.hdpo.algorithm.softmax_rows`); a chunk of c tokens is rows 0 to c - 1.

    Raises:
        ValueError: a chunk_size below 1.
    """

    def __init__(
        self,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        temperature_N: torch.Tensor | None,
        chunk_size: int | None,
    ) -> None:
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size={chunk_size} must be at least 1 token; None picks a good one.")
        self.hidden_NH, self.weight_VH = hidden_NH, weight_VH
        self.temperature_N1 = None if temperature_N is None else temperature_N.to(hidden_NH.dtype)[:, None]
        vocabulary = len(weight_VH)
        self.size = min(chunk_size or _chunk_size(vocabulary, hidden_NH), max(1, len(hidden_NH)))
        self.logits_CV = torch.empty(self.size, vocabulary, dtype=hidden_NH.dtype, device=hidden_NH.device)
        self.rows = softmax_rows(self.logits_CV, torch.arange(self.size), None)

    def spans(self) -> Iterator[slice]:
        """The chunks' places among the N tokens."""
        for begin in range(0, len(self.hidden_NH), self.size):
            yield slice(begin, min(begin + self.size, len(self.hidden_NH)))

    def load(self, span: slice) -> torch.Tensor:
        """Put the logits of a chunk into the workspace; returns the rows that hold them, (c, V)."""
        logits_CV = self.logits_CV[: span.stop - span.start]
        torch.mm(self.hidden_NH[span], self.weight_VH.t(), out=logits_CV)
        if self.temperature_N1 is not None:
            logits_CV.div_(self.temperature_N1[span])
        return logits_CV


class WeightGradient:
    """dW, added up chunk by chunk: in float32 for halves, in their own dtype for float32 and float64.

    Args:
        weight_VH: the head's weight.
        chunks: how many will be added; the product of a single one is the gradient, and needs no sum.
    """

    def __init__(self, weight_VH: torch.Tensor, chunks: int) -> None:
        self.weight_VH, self.is_single = weight_VH, chunks <= 1
        dtype = weight_VH.dtype if self.is_single else working_dtype(weight_VH.dtype)
        self.total_VH = torch.zeros(weight_VH.shape, dtype=dtype, device=weight_VH.device)

    def add(self, dz_CV: torch.Tensor, hidden_CH: torch.Tensor) -> None:
        """Add the part of one chunk."""
        if self.is_single:
            torch.mm(dz_CV.t(), hidden_CH, out=self.total_VH)
        elif self.total_VH.dtype == dz_CV.dtype:
            self.total_VH.addmm_(dz_CV.t(), hidden_CH)
        elif _adds_in_float32(self.total_VH.device, dz_CV.dtype):
            torch.addmm(self.total_VH, dz_CV.t(), hidden_CH, out_dtype=torch.float32, out=self.total_VH)
        else:
            self.total_VH.add_(dz_CV.t() @ hidden_CH)

    def result(self) -> torch.Tensor:
        """dW, (V, H), in the weight's dtype."""
        return self.total_VH.to(self.weight_VH.dtype)


@cache
def _adds_in_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch and device add a product of halves to float32 numbers without a temporary: tried once."""
    if device.type != "cuda":
        return False
    total, ones = torch.ones(16, 16, device=device), torch.ones(16, 16, dtype=dtype, device=device)
    try:
        torch.addmm(total, ones, ones, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    return bool((total == 17.0).all())


def _chunk_size(vocabulary: int, hidden_NH: torch.Tensor) -> int:
    on_host = hidden_NH.device.type == "cpu"
    bytes_of_row = vocabulary * hidden_NH.element_size()
    size = (_CHUNK_BYTES if on_host else _CHUNK_BYTES_ON_ACCELERATOR) // bytes_of_row
    return size - size % _TILE if size >= _TILE else max(1, size)
