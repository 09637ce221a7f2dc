"""Two Triton kernels that read or write selected rows of logits once, where PyTorch's softmax would store float32 rows.

    row_logsumexp   z_m = logsumexp(logits[rows[m]])                      one pass that reads
    scale_softmax   out[rows[m], v] = a_m exp(logits[rows[m], v] - z_m)   one pass that reads and writes

On request the first gives the softmax's entropy too, and the second takes the factor a_m + b_m ln q for a_m.

So the divergence takes about three passes over the compared rows, forward and backward together, and no workspace. Used
on CUDA where Triton is installed (it comes with PyTorch's CUDA builds); ``softmax_rows.py`` has a path without it.
"""

from __future__ import annotations

import os

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # a CPU build of PyTorch
    triton = None

_BLOCK = 8192
_WARPS = 4


def can_run_on(logits: torch.Tensor) -> bool:
    """Whether the kernels serve these logits: float64 stays with PyTorch, for exactness.

    Triton's interpreter (``TRITON_INTERPRET=1``) runs them on a CPU, slowly, for tests.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return triton is not None and (logits.is_cuda or interpreted) and logits.dtype != torch.float64


def row_logsumexp(
    logits_NV: torch.Tensor,
    rows_M: torch.Tensor,
    copy_to_NV: torch.Tensor | None = None,
    entropy_M: torch.Tensor | None = None,
) -> torch.Tensor:
    """logsumexp of the named rows, (M,) float32; -inf for a row that is -inf throughout.

    Args:
        logits_NV: (N, V), rows contiguous, any floating dtype but float64; accumulated in float32.
        rows_M: (M,) int64 on the same device, in [0, N).
        copy_to_NV: (N, V) of the same dtype, rows contiguous; gets a copy of the named rows on the way.
        entropy_M: (M,) float32; gets the entropy of the rows' softmax, in nats.
    """
    out_M = torch.empty(len(rows_M), dtype=torch.float32, device=logits_NV.device)
    if len(rows_M):
        copy_NV = logits_NV if copy_to_NV is None else copy_to_NV
        _logsumexp_kernel[(len(rows_M),)](
            logits_NV, logits_NV.stride(0), rows_M, out_M, copy_NV, copy_NV.stride(0),
            out_M if entropy_M is None else entropy_M, logits_NV.shape[1],
            COPY=copy_to_NV is not None, ENTROPY=entropy_M is not None, BLOCK=_BLOCK, num_warps=_WARPS,
        )  # fmt: skip
    return out_M


def scale_softmax(
    logits_NV: torch.Tensor,
    rows_M: torch.Tensor,
    log_z_M: torch.Tensor,
    factor_M: torch.Tensor,
    out_NV: torch.Tensor,
    slope_M: torch.Tensor | None = None,
) -> None:
    """out[row] = (factor + slope ln q) q, q = softmax(logits[row]), for the named rows; others are left as they are.

    Args:
        logits_NV, rows_M: as in :func:`row_logsumexp`.
        log_z_M, factor_M: (M,) float32, the rows' logsumexp and factors.
        out_NV: (N, V), rows contiguous; may be the logits themselves.
        slope_M: (M,) float32; None for 0.
    """
    if len(rows_M):
        vocabulary = logits_NV.shape[1]
        _scale_softmax_kernel[(len(rows_M), triton.cdiv(vocabulary, _BLOCK))](
            logits_NV, logits_NV.stride(0), rows_M, log_z_M, factor_M, factor_M if slope_M is None else slope_M,
            out_NV, out_NV.stride(0), vocabulary, SLOPE=slope_M is not None, BLOCK=_BLOCK, num_warps=_WARPS,
        )  # fmt: skip


if triton is not None:

    @triton.jit
    def _logsumexp_kernel(
        logits, stride, rows, out, copy, copy_stride, entropy, vocabulary,
        COPY: tl.constexpr, ENTROPY: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        n = tl.program_id(0)
        # int64: a row's offset may exceed 2^31.
        row = tl.load(rows + n).to(tl.int64)
        greatest = tl.full((), float("-inf"), tl.float32)
        total = tl.zeros((), tl.float32)
        weighted = tl.zeros((), tl.float32)
        for begin in range(0, vocabulary, BLOCK):
            column = begin + tl.arange(0, BLOCK)
            inside = column < vocabulary
            stored = tl.load(logits + row * stride + column, mask=inside, other=float("-inf"))
            if COPY:
                tl.store(copy + row * copy_stride + column, stored, mask=inside)
            z = stored.to(tl.float32)
            above = tl.maximum(greatest, tl.max(z, axis=0))
            # All -inf so far: exp(-inf - 0) is 0, where -inf - -inf would be NaN.
            shift = tl.where(above == float("-inf"), 0.0, above)
            before = tl.exp(greatest - shift)
            weight = tl.exp(z - shift)
            if ENTROPY:
                # Sum of weight * (z - shift), whose shift moves with the greatest; 0 times -inf counts as 0.
                moved = tl.where(total > 0, total * (greatest - shift), 0.0)
                new = tl.where(weight > 0, weight * (z - shift), 0.0)
                weighted = (weighted + moved) * before + tl.sum(new, axis=0)
            total = total * before + tl.sum(weight, axis=0)
            greatest = above
        tl.store(out + n, greatest + tl.log(total))
        if ENTROPY:
            tl.store(entropy + n, tl.log(total) - weighted / total)

    @triton.jit
    def _scale_softmax_kernel(
        logits, stride, rows, log_z, factor, slope, out, out_stride, vocabulary,
        SLOPE: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        n = tl.program_id(0)
        row = tl.load(rows + n).to(tl.int64)
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < vocabulary
        z = tl.load(logits + row * stride + column, mask=inside, other=float("-inf")).to(tl.float32)
        log_q = z - tl.load(log_z + n)
        q = tl.exp(log_q)
        scaled = tl.load(factor + n) * q
        if SLOPE:
            scaled += tl.where(q > 0, tl.load(slope + n) * log_q * q, 0.0)
        tl.store(out + row * out_stride + column, scaled, mask=inside)
