"""Token-level divergence between a truncated teacher and the full student, as a differentiable function of the logits.

Forward stores nothing of size N x V, backward only the gradient.

What is computed, with its derivatives: :mod:`recipe.hdpo.algorithm.divergence_formulas`. Shape suffixes: see
`teacher_topk.py`.
"""

from typing import Any, NamedTuple, get_args

import torch

from recipe.hdpo.algorithm.divergence_formulas import DivergenceKind, divergence_value, logit_gradient
from recipe.hdpo.algorithm.softmax_rows import softmax_rows
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, check_rows, value_range


class Divergence(NamedTuple):
    """Results by position, each (N,) float32 (float64 for float64 logits); only `per_token` has a gradient.

    Attributes:
        per_token: the divergence in nats, >= 0.
        student_mass: sum_S q, the student's probability on the teacher's top-k.
        teacher_mass: sum_S p, the teacher's own.
    """

    per_token: torch.Tensor
    student_mass: torch.Tensor
    teacher_mass: torch.Tensor


class _Options(NamedTuple):
    kind: DivergenceKind
    beta: float
    chunk_size: int | None
    protect_logits: bool


def topk_divergence(
    student_logits_TV: torch.Tensor,
    teacher: TeacherTopK,
    rows_N: torch.Tensor,
    *,
    kind: DivergenceKind = "jsd",
    beta: float = 0.5,
    chunk_size: int | None = None,
    protect_logits: bool = False,
) -> Divergence:
    """Divergence of student and teacher at N positions, differentiable once in the student's logits.

    Args:
        student_logits_TV: (T, V), any floating dtype; computed in float32 (float64 for float64).
        teacher: N rows; row n is the teacher of student row rows_N[n]. Gets no gradient.
        rows_N: (N,) int64, distinct, in [0, T). Rows of T that are not named get a gradient of exactly 0.
            N = 0 gives empty tensors that stay connected to the logits' graph. Rows and teacher are checked where they
            are: on the host no accelerator is waited for, and the teacher is copied to the logits' device.
        kind: "jsd", "forward_kl" or "reverse_kl", as defined in `divergence_formulas.py`.
        beta: the teacher's weight in the mixture, in (0, 1); only "jsd" reads it.
        chunk_size: rows per chunk; None picks it from V. It changes memory and speed only.
        protect_logits: for logits that something overwrites during backward before this function's own
            backward runs, unseen by autograd's version check (flash-attn's cross entropy with
            inplace_backward=True). Forward then copies the compared rows into a buffer of the logits' size,
            and backward turns that buffer into the gradient: still one buffer, but allocated earlier. A second
            backward over a retained graph then raises autograd's error about tensors modified in place.

    Returns:
        Divergence. Finite for finite logits. Where the student masks (-inf) a token of the teacher's top-k,
        forward_kl is inf, as it should be; jsd and reverse_kl stay finite.

    Raises:
        ValueError: beta outside (0, 1) with jsd, an unknown kind, topk above the vocabulary, ids outside it,
            or rows that are out of range, repeated, or not as many as the teacher's.
    """
    _check(student_logits_TV, teacher, rows_N, kind, beta)
    options = _Options(kind, beta, chunk_size, protect_logits)
    teacher = teacher.to(student_logits_TV.device)
    results = _TopKDivergence.apply(student_logits_TV, teacher.ids, teacher.log_probs.detach(), rows_N, options)
    return Divergence(*results)


class _TopKDivergence(torch.autograd.Function):
    """Keeps only tensors that the caller holds anyway; backward recomputes the softmax."""

    @staticmethod
    def forward(ctx: Any, logits_TV, ids_NK, log_p_NK, rows_N, options: _Options):
        selected = softmax_rows(logits_TV, rows_N, options.chunk_size)
        value_N, student_mass_N, teacher_mass_N, log_z_N = (
            torch.empty(len(rows_N), dtype=selected.dtype, device=logits_TV.device) for _ in range(4)
        )
        protect = options.protect_logits and ctx.needs_input_grad[0]
        # T rows and not N, so that backward can return this very buffer as the gradient.
        kept_TV = torch.zeros_like(logits_TV) if protect else logits_TV
        for block in selected.blocks(ids_NK.shape[1]):
            ids, log_p = ids_NK[block], log_p_NK[block].to(selected.dtype)
            log_q, log_z_N[block] = selected.log_softmax_at(block, ids, kept_TV if protect else None)
            mass = log_q.exp().sum(-1)
            value_N[block] = divergence_value(options.kind, options.beta, log_p, log_q, _rest(mass, logits_TV, ids))
            student_mass_N[block], teacher_mass_N[block] = mass, log_p.exp().sum(-1)
        ctx.save_for_backward(kept_TV, ids_NK, log_p_NK, rows_N, log_z_N)
        ctx.options, ctx.protected = options, protect
        ctx.mark_non_differentiable(student_mass_N, teacher_mass_N)
        return value_N.clamp_(min=0.0), student_mass_N, teacher_mass_N

    @staticmethod
    def backward(ctx: Any, grad_N, *_masses):
        # once_differentiable would let a linear loss through, with a second derivative that is silently 0.
        if torch.is_grad_enabled():
            raise RuntimeError("topk_divergence has no second derivative: call backward without create_graph=True.")
        logits_TV, ids_NK, log_p_NK, rows_N, log_z_N = ctx.saved_tensors
        options = ctx.options
        selected = softmax_rows(logits_TV, rows_N, options.chunk_size)
        if ctx.protected:
            grad_TV = logits_TV
        else:
            # Rows are distinct: as many as T means that every one is written.
            covers_all = len(rows_N) == len(logits_TV)
            grad_TV = torch.empty_like(logits_TV) if covers_all else torch.zeros_like(logits_TV)
        for block in selected.blocks(ids_NK.shape[1]):
            ids, scale, log_z = ids_NK[block], grad_N[block, None], log_z_N[block]
            log_q = selected.gather(block, ids) - log_z[:, None]
            q_rest = _rest(log_q.exp().sum(-1), logits_TV, ids)
            on_s, tail = logit_gradient(options.kind, options.beta, log_p_NK[block].to(selected.dtype), log_q, q_rest)
            selected.write_gradient(block, log_z, ids, on_s * scale, tail * scale, grad_TV)
        return grad_TV, None, None, None, None


def _rest(mass: torch.Tensor, logits_TV: torch.Tensor, ids_NK: torch.Tensor) -> torch.Tensor:
    """1 - sum_S without rounding below 0, and exactly 0 where S is the whole vocabulary."""
    is_whole_vocabulary = ids_NK.shape[1] == logits_TV.shape[1]
    return torch.zeros_like(mass) if is_whole_vocabulary else (1.0 - mass).clamp_(min=0.0)


def _check(logits_TV: torch.Tensor, teacher: TeacherTopK, rows_N: torch.Tensor, kind: str, beta: float) -> None:
    if kind not in get_args(DivergenceKind):
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(get_args(DivergenceKind))}.")
    if kind == "jsd" and not 0.0 < beta < 1.0:
        raise ValueError(f"beta={beta} must lie in (0, 1); its ends are kind=forward_kl (0), reverse_kl (1).")
    if logits_TV.dim() != 2:
        raise ValueError(f"student logits must be (T, V), got {tuple(logits_TV.shape)}; drop the batch axis.")
    (n_rows, vocabulary), (n_teacher, k) = logits_TV.shape, teacher.ids.shape
    if k > vocabulary:
        raise ValueError(f"topk={k} exceeds the student's vocabulary of {vocabulary}; lower topk.")
    if len(rows_N) != n_teacher:
        raise ValueError(f"{len(rows_N)} rows but {n_teacher} teacher rows: they must pair one to one.")
    check_rows(rows_N, n_rows, distinct=True)
    if teacher.ids.numel():
        low, high = value_range(teacher.ids)
        if low < 0 or high >= vocabulary:
            raise ValueError(
                f"teacher ids span [{low}, {high}] but the student's vocabulary has {vocabulary} tokens; "
                "teacher and student need the same tokenizer."
            )
