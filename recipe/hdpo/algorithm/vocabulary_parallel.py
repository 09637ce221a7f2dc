"""The teacher's top-k and the divergences where each rank of a tensor-parallel group holds a slice of the vocabulary.

    log Z    logsumexp over ranks of each rank's own logsumexp                    gathered: 1 number a row and rank
    S        the k best of the candidates; each rank offers its own k best        gathered: 2k numbers a row and rank
    log q_v  z_v - log Z, from the rank that holds v                              all-reduced: k numbers a row

With log q on S every rank knows what the formulas read (:mod:`recipe.hdpo.algorithm.divergence_formulas`), so all of
them compute the same value; in backward each writes the gradient of its own slice, and nothing is communicated.

Pure functions: a tensor-parallel engine would need them, and the recipe's FSDP engine keeps the vocabulary whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import torch
import torch.distributed as dist

from recipe.hdpo.algorithm.divergence import Divergence
from recipe.hdpo.algorithm.divergence_formulas import DivergenceKind, divergence_value, logit_gradient
from recipe.hdpo.algorithm.softmax_rows import to_device, working_dtype
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, check_rows, value_range

# Entries of a chunk of logits in the working dtype.
_CHUNK = 2**24


@dataclass(frozen=True)
class VocabularySlice:
    """Which token ids a rank's logits stand for.

    Example:
        ``VocabularySlice(first=0, vocabulary=152064, group=group)`` on the first rank

    Attributes:
        first: id of the slice's first column. The slices of a group are disjoint and cover the vocabulary.
        vocabulary: columns of all slices together. Columns that only pad it must hold -inf.
        group: the tensor-parallel process group. All its ranks call with the same rows, in the same order.
    """

    first: int
    vocabulary: int
    group: Any


class _Options(NamedTuple):
    part: VocabularySlice
    kind: DivergenceKind
    beta: float


@torch.no_grad()
def parallel_teacher_topk(logits_NV: torch.Tensor, k: int, part: VocabularySlice, rows_M: torch.Tensor) -> TeacherTopK:
    """``teacher_topk`` of the whole vocabulary, the same on every rank.

    Args:
        logits_NV: (N, V), the V columns of this rank's slice; computed in float32 (float64 for float64).
        k: 1 <= k <= the whole vocabulary.
        rows_M: (M,) int64 in [0, N), the same on every rank.

    Raises:
        ValueError: a slice or k outside the vocabulary, or rows outside [0, N).
    """
    _check_slice(logits_NV, part, rows_M)
    if not 1 <= k <= part.vocabulary:
        raise ValueError(f"topk={k} must lie in [1, {part.vocabulary}], the teacher's vocabulary; lower topk.")
    dtype, rows_M = working_dtype(logits_NV.dtype), to_device(rows_M, logits_NV.device)
    values_MK = torch.full((len(rows_M), k), float("-inf"), dtype=dtype, device=logits_NV.device)
    # A slice narrower than k fills up with what is no token.
    ids_MK = torch.full((len(rows_M), k), -1, device=logits_NV.device)
    own = min(k, logits_NV.shape[1])
    for span, chunk_CV in _chunks(logits_NV, rows_M):
        values_MK[span, :own], ids_MK[span, :own] = chunk_CV.topk(own, dim=-1)
    ids_MK[:, :own] += part.first
    values, ids = _gathered(values_MK, part), _gathered(ids_MK, part)
    # Tokens before fillers, which matters where tokens are -inf too; then the best first.
    order = (ids < 0).int().argsort(dim=-1, stable=True)
    values, ids = values.gather(-1, order), ids.gather(-1, order)
    best = values.argsort(dim=-1, descending=True, stable=True)[:, :k]
    log_z_M1 = _log_normaliser(logits_NV, rows_M, part)[:, None]
    return TeacherTopK(ids=ids.gather(-1, best), log_probs=values.gather(-1, best) - log_z_M1)


def parallel_divergence(
    logits_NV: torch.Tensor,
    teacher: TeacherTopK,
    rows_M: torch.Tensor,
    part: VocabularySlice,
    *,
    kind: DivergenceKind = "jsd",
    beta: float = 0.5,
) -> Divergence:
    """``topk_divergence`` of the whole vocabulary: values as on one rank, and the gradient of each rank's own slice.

    Args:
        logits_NV: (N, V), the V columns of this rank's slice, any floating dtype.
        teacher: M rows, ids of the whole vocabulary, the same on every rank.
        rows_M: (M,) int64, distinct, in [0, N), the same on every rank.
        kind, beta: as for ``topk_divergence``.

    Returns:
        Divergence. The gradient is that of a loss which the group counts once.

    Raises:
        ValueError: a slice outside the vocabulary, bad rows, an unknown kind, beta outside (0, 1) with "jsd", or
            teacher rows that do not fit.
    """
    _check_slice(logits_NV, part, rows_M, distinct=True)
    if kind not in get_args(DivergenceKind):
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(get_args(DivergenceKind))}.")
    if kind == "jsd" and not 0.0 < beta < 1.0:
        raise ValueError(f"beta={beta} must lie in (0, 1); its ends are kind=forward_kl (0), reverse_kl (1).")
    if len(rows_M) != len(teacher.ids):
        raise ValueError(f"{len(rows_M)} rows but {len(teacher.ids)} teacher rows: they must pair one to one.")
    low, high = value_range(teacher.ids) if len(rows_M) else (0, 0)
    if low < 0 or high >= part.vocabulary:
        raise ValueError(f"teacher ids span [{low}, {high}], but the vocabulary has {part.vocabulary} tokens.")
    if bool(teacher.log_probs.sum(-1).isnan().any()):
        raise ValueError("teacher log-probabilities are NaN, as the logits were that they come from.")
    teacher, rows_M = teacher.to(logits_NV.device), to_device(rows_M, logits_NV.device)
    options = _Options(part, kind, beta)
    return Divergence(*_ParallelDivergence.apply(logits_NV, teacher.ids, teacher.log_probs.detach(), rows_M, options))


class _ParallelDivergence(torch.autograd.Function):
    """Keeps the logits, which the caller holds anyway, and numbers of size M x K."""

    @staticmethod
    def forward(ctx: Any, logits_NV, ids_MK, log_p_MK, rows_M, options: _Options):
        part, (inside_MK, column_MK) = options.part, _columns(ids_MK, logits_NV, options.part)
        log_z_M = _log_normaliser(logits_NV, rows_M, part)
        own_MK = logits_NV[rows_M[:, None], column_MK.clamp(max=logits_NV.shape[1] - 1)].to(log_z_M.dtype)
        log_q_MK = _summed(torch.where(inside_MK, own_MK, 0.0), part) - log_z_M[:, None]
        log_p_MK = log_p_MK.to(log_q_MK.dtype)
        mass_M = log_q_MK.exp().sum(-1)
        is_whole = ids_MK.shape[1] == part.vocabulary
        rest_M = torch.zeros_like(mass_M) if is_whole else (1.0 - mass_M).clamp_(min=0.0)
        value_M = divergence_value(options.kind, options.beta, log_p_MK, log_q_MK, rest_M)
        ctx.save_for_backward(logits_NV, column_MK, log_p_MK, log_q_MK, rest_M, rows_M, log_z_M)
        ctx.options, teacher_mass_M = options, log_p_MK.exp().sum(-1)
        ctx.mark_non_differentiable(mass_M, teacher_mass_M)
        return value_M.clamp_(min=0.0), mass_M, teacher_mass_M

    @staticmethod
    def backward(ctx: Any, grad_M, *_masses):
        if torch.is_grad_enabled():
            raise RuntimeError("parallel_divergence has no second derivative: leave create_graph out.")
        logits_NV, column_MK, log_p_MK, log_q_MK, rest_M, rows_M, log_z_M = ctx.saved_tensors
        on_s, tail = logit_gradient(ctx.options.kind, ctx.options.beta, log_p_MK, log_q_MK, rest_M)
        on_s, tail = on_s * grad_M[:, None], tail * grad_M[:, None]
        grad_NV = torch.zeros_like(logits_NV)
        for span, chunk_CV in _chunks(logits_NV, rows_M):
            grad_CV = torch.exp(chunk_CV - log_z_M[span, None]).mul_(tail[span])
            # One more column takes what belongs to ids of other slices.
            with_other = torch.nn.functional.pad(grad_CV, (0, 1)).scatter_(-1, column_MK[span], on_s[span])
            grad_NV[rows_M[span]] = with_other[:, :-1].to(grad_NV.dtype)
        return grad_NV, None, None, None, None


def _columns(ids_MK: torch.Tensor, logits_NV: torch.Tensor, part: VocabularySlice) -> tuple[torch.Tensor, torch.Tensor]:
    """Which ids lie in this rank's slice, and their columns; V, one past the last, for the others."""
    width = logits_NV.shape[1]
    inside_MK = (ids_MK >= part.first) & (ids_MK < part.first + width)
    return inside_MK, torch.where(inside_MK, ids_MK - part.first, width)


def _log_normaliser(logits_NV: torch.Tensor, rows_M: torch.Tensor, part: VocabularySlice) -> torch.Tensor:
    """logsumexp of each row over all slices, (M,)."""
    own_M = torch.empty(len(rows_M), dtype=working_dtype(logits_NV.dtype), device=logits_NV.device)
    for span, chunk_CV in _chunks(logits_NV, rows_M):
        own_M[span] = chunk_CV.logsumexp(-1)
    return _gathered(own_M[:, None], part).logsumexp(-1)


def _chunks(logits_NV: torch.Tensor, rows_M: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Some rows of the logits at a time, (C, V) in the working dtype, with their place in M."""
    size = max(1, _CHUNK // max(1, logits_NV.shape[1]))
    for begin in range(0, len(rows_M), size):
        span = slice(begin, min(begin + size, len(rows_M)))
        yield span, logits_NV[rows_M[span]].to(working_dtype(logits_NV.dtype))


def _gathered(own_MX: torch.Tensor, part: VocabularySlice) -> torch.Tensor:
    """The tensors of all ranks side by side, in the order of ranks; none is asked where there are no rows."""
    if len(own_MX) == 0:
        return own_MX
    parts = [torch.empty_like(own_MX) for _ in range(dist.get_world_size(part.group))]
    dist.all_gather(parts, own_MX.contiguous(), group=part.group)
    return torch.cat(parts, dim=-1)


def _summed(own_MK: torch.Tensor, part: VocabularySlice) -> torch.Tensor:
    """The sum over ranks of the same tensor."""
    if len(own_MK):
        dist.all_reduce(own_MK, group=part.group)
    return own_MK


def _check_slice(
    logits_NV: torch.Tensor, part: VocabularySlice, rows_M: torch.Tensor, *, distinct: bool = False
) -> None:
    if logits_NV.dim() != 2 or logits_NV.shape[1] == 0:
        raise ValueError(f"logits of a slice must be (N, V) with columns, got {tuple(logits_NV.shape)}.")
    last = part.first + logits_NV.shape[1]
    if part.first < 0 or last > part.vocabulary:
        raise ValueError(f"ids {part.first} to {last - 1} of a slice leave the vocabulary of {part.vocabulary} tokens.")
    check_rows(rows_M, len(logits_NV), distinct=distinct)
