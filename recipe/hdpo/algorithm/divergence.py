"""Token-level divergence between a truncated teacher and the full student, as a differentiable function of the logits.

Forward stores nothing of size M x V, backward only the gradient.

What is computed, with its derivatives: :mod:`recipe.hdpo.algorithm.divergence_formulas`.
"""

from typing import Any, NamedTuple, get_args

import torch

from recipe.hdpo.algorithm.divergence_formulas import DivergenceKind, divergence_value, logit_gradient
from recipe.hdpo.algorithm.softmax_rows import softmax_rows
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, check_rows, value_range


class Divergence(NamedTuple):
    """Results by position, (M,) float32 (float64 for float64 logits) but for ``tops``; ``per_token`` has a gradient.

    Attributes:
        per_token: the divergence in nats, >= 0.
        student_mass: sum_S q, the student's probability on the teacher's top-k.
        teacher_mass: sum_S p, the teacher's own.
        tops: what :func:`student_tops` reads, (M, 3 T); T is 0 unless it was asked for. None where nobody can ask.
    """

    per_token: torch.Tensor
    student_mass: torch.Tensor
    teacher_mass: torch.Tensor
    tops: torch.Tensor | None = None


class _Options(NamedTuple):
    kind: DivergenceKind
    beta: float
    chunk_size: int | None
    protect_logits: bool
    tops: int


def topk_divergence(
    student_logits_NV: torch.Tensor,
    teacher: TeacherTopK,
    rows_M: torch.Tensor,
    *,
    kind: DivergenceKind = "jsd",
    beta: float = 0.5,
    chunk_size: int | None = None,
    protect_logits: bool = False,
    tops: int = 0,
) -> Divergence:
    """Divergence of student and teacher at M positions, differentiable once in the student's logits.

    Args:
        student_logits_NV: (N, V), any floating dtype; computed in float32 (float64 for float64).
        teacher: M rows; row n is the teacher of student row rows_M[n]. Gets no gradient.
        rows_M: (M,) int64, distinct, in [0, N). Rows of N that are not named get a gradient of exactly 0.
            M = 0 gives empty tensors that stay connected to the logits' graph. Rows and teacher are checked where they
            are: on the host no accelerator is waited for, and the teacher is copied to the logits' device.
        kind: "jsd", "forward_kl" or "reverse_kl", as defined in ``divergence_formulas.py``.
        beta: the teacher's weight in the mixture, in (0, 1); only "jsd" reads it.
        chunk_size: rows per chunk; None picks it from V. It changes memory and speed only.
        protect_logits: for logits that something overwrites during backward before this function's own
            backward runs, unseen by autograd's version check (flash-attn's cross entropy with
            inplace_backward=True). Forward then copies the compared rows into a buffer of the logits' size,
            and backward turns that buffer into the gradient: still one buffer, but allocated earlier. A second
            backward over a retained graph then raises autograd's error about tensors modified in place.
        tops: T, how many of the most likely tokens are told of each position, for people to read.

    Returns:
        Divergence. Finite for finite logits. Where the student masks (-inf) a token of the teacher's top-k,
        forward_kl is inf, as it should be; jsd and reverse_kl stay finite.

    Raises:
        ValueError: beta outside (0, 1) with jsd, an unknown kind, topk above the vocabulary, ids outside it,
            rows that are out of range, repeated, or not as many as the teacher's, or a teacher that is NaN.
    """
    if student_logits_NV.dim() != 2:
        raise ValueError(f"student logits must be (N, V), got {tuple(student_logits_NV.shape)}; drop the batch axis.")
    check_pairing(len(student_logits_NV), student_logits_NV.shape[1], teacher, rows_M, kind, beta)
    options = _Options(kind, beta, chunk_size, protect_logits, tops)
    teacher = teacher.to(student_logits_NV.device)
    results = _TopKDivergence.apply(student_logits_NV, teacher.ids, teacher.log_probs.detach(), rows_M, options)
    return Divergence(*results)


class _TopKDivergence(torch.autograd.Function):
    """Keeps only tensors that the caller holds anyway; backward recomputes the softmax."""

    @staticmethod
    def forward(ctx: Any, logits_NV, ids_MK, log_p_MK, rows_M, options: _Options):
        selected = softmax_rows(logits_NV, rows_M, options.chunk_size)
        value_M, student_mass_M, teacher_mass_M, log_z_M = (
            torch.empty(len(rows_M), dtype=selected.dtype, device=logits_NV.device) for _ in range(4)
        )
        tops_M3T = value_M.new_empty(len(rows_M), 3 * options.tops)
        protect = options.protect_logits and ctx.needs_input_grad[0]
        # N rows and not M, so that backward can return this very buffer as the gradient.
        kept_NV = torch.zeros_like(logits_NV) if protect else logits_NV
        for block in selected.blocks(ids_MK.shape[1]):
            ids, log_p = ids_MK[block], log_p_MK[block].to(selected.dtype)
            log_q, log_z_M[block] = selected.log_softmax_at(block, ids, kept_NV if protect else None)
            mass = log_q.exp().sum(-1)
            value_M[block] = divergence_value(
                options.kind, options.beta, log_p, log_q, rest_of(mass, ids, logits_NV.shape[1])
            )
            student_mass_M[block], teacher_mass_M[block] = mass, log_p.exp().sum(-1)
            tops_M3T[block] = student_tops(log_q, options.tops)
        ctx.save_for_backward(kept_NV, ids_MK, log_p_MK, rows_M, log_z_M)
        ctx.options, ctx.protected = options, protect
        ctx.mark_non_differentiable(student_mass_M, teacher_mass_M, tops_M3T)
        return value_M.clamp_(min=0.0), student_mass_M, teacher_mass_M, tops_M3T

    @staticmethod
    def backward(ctx: Any, grad_M, *_masses):
        # once_differentiable would let a linear loss through, with a second derivative that is silently 0.
        if torch.is_grad_enabled():
            raise RuntimeError("topk_divergence has no second derivative: call backward without create_graph=True.")
        logits_NV, ids_MK, log_p_MK, rows_M, log_z_M = ctx.saved_tensors
        options = ctx.options
        selected = softmax_rows(logits_NV, rows_M, options.chunk_size)
        if ctx.protected:
            grad_NV = logits_NV
        else:
            # Rows are distinct: as many as N means that every one is written.
            covers_all = len(rows_M) == len(logits_NV)
            grad_NV = torch.empty_like(logits_NV) if covers_all else torch.zeros_like(logits_NV)
        for block in selected.blocks(ids_MK.shape[1]):
            ids, scale, log_z = ids_MK[block], grad_M[block, None], log_z_M[block]
            log_q = selected.gather(block, ids) - log_z[:, None]
            q_rest = rest_of(log_q.exp().sum(-1), ids, logits_NV.shape[1])
            on_s, tail = logit_gradient(options.kind, options.beta, log_p_MK[block].to(selected.dtype), log_q, q_rest)
            selected.write_gradient(block, log_z, ids, on_s * scale, tail * scale, grad_NV)
        return grad_NV, None, None, None, None


def student_tops(log_q_MK: torch.Tensor, tops: int) -> torch.Tensor:
    """What a reader wants of the student's log-probabilities at the teacher's top-k, (M, 3 T).

    Of each position T times log q at the teacher's most likely tokens; T places in S of the student's own most likely
    tokens *within S*; and log q at those. NaN where T is above k. The student's most likely token of all may lie
    outside S: what it has there is 1 - sum_S q.
    """
    found = log_q_MK.new_full((len(log_q_MK), 3, tops), float("nan"))
    if best := min(tops, log_q_MK.shape[1]):
        values, places = log_q_MK.topk(best, dim=-1)
        found[:, :, :best] = torch.stack([log_q_MK[:, :best], places.to(values.dtype), values], 1)
    return found.flatten(1)


def rest_of(mass: torch.Tensor, ids_MK: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """1 - sum_S without rounding below 0, and exactly 0 where S is the whole vocabulary."""
    return torch.zeros_like(mass) if ids_MK.shape[1] == vocabulary else (1.0 - mass).clamp_(min=0.0)


def check_pairing(
    n_rows: int, vocabulary: int, teacher: TeacherTopK, rows_M: torch.Tensor, kind: str, beta: float
) -> None:
    """Refuse a teacher, rows or options that do not fit n_rows rows of a vocabulary: ValueError."""
    if kind not in get_args(DivergenceKind):
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(get_args(DivergenceKind))}.")
    if kind == "jsd" and not 0.0 < beta < 1.0:
        raise ValueError(f"beta={beta} must lie in (0, 1); its ends are kind=forward_kl (0), reverse_kl (1).")
    n_teacher, k = teacher.ids.shape
    if k > vocabulary:
        raise ValueError(f"topk={k} exceeds the student's vocabulary of {vocabulary}; lower topk.")
    if len(rows_M) != n_teacher:
        raise ValueError(f"{len(rows_M)} rows but {n_teacher} teacher rows: they must pair one to one.")
    check_rows(rows_M, n_rows, distinct=True)
    if teacher.ids.numel():
        low, high = value_range(teacher.ids)
        if low < 0 or high >= vocabulary:
            raise ValueError(
                f"teacher ids span [{low}, {high}] but the student's vocabulary has {vocabulary} tokens; "
                "teacher and student need the same tokenizer."
            )
        # The sum of log-probabilities, -inf among them, is NaN where one of them is.
        is_nan_M = teacher.log_probs.sum(-1).isnan()
        if bool(is_nan_M.any()):
            row = int(is_nan_M.nonzero()[0])
            raise ValueError(f"teacher log-probabilities of row {row} are NaN, as the logits were that they come from.")
