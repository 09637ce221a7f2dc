"""Log-probabilities, entropy and divergence straight from hidden states and a model's head: the logits never exist.

Forward and backward make the logits chunk by chunk, each in the same workspace, so that memory does not grow with the
number of tokens. Forward keeps one logsumexp per token. Backward computes the logits a second time, since the gradient
that arrives at a token's log-probability is known only then: four products of N x H x V where plain logits take three.

Of a token with label l, softmax q, entropy E and, where it is distilled, divergence D,

    d ln q_l / dz_v = [v = l] - q_v,    dE / dz_v = -q_v (ln q_v + E),    dD / dz_v: ``divergence_formulas.py``
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, NamedTuple

import torch

from recipe.hdpo.algorithm.divergence import Divergence, check_pairing, rest_of, student_tops
from recipe.hdpo.algorithm.divergence_formulas import DivergenceKind, divergence_value, logit_gradient
from recipe.hdpo.algorithm.head_chunks import HeadChunks, WeightGradient
from recipe.hdpo.algorithm.softmax_rows import to_device, working_dtype
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, teacher_topk


class HeadResults(NamedTuple):
    """What the losses need of the vocabulary, in float32 (float64 for float64).

    Attributes:
        log_probs_N: log-probability of each token's label, in nats.
        entropy_N: of each token's softmax, in nats; None if it was not asked for.
        divergence: at the M distilled tokens; None without a teacher.
    """

    log_probs_N: torch.Tensor
    entropy_N: torch.Tensor | None
    divergence: Divergence | None


class _Options(NamedTuple):
    kind: DivergenceKind
    beta: float
    entropy: bool
    chunk_size: int | None
    rows: list[int]
    tops: int


def fused_head(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    labels_N: torch.Tensor,
    *,
    teacher: TeacherTopK | None = None,
    rows_M: torch.Tensor | None = None,
    kind: DivergenceKind = "jsd",
    beta: float = 0.5,
    temperature_N: torch.Tensor | None = None,
    entropy: bool = False,
    chunk_size: int | None = None,
    tops: int = 0,
) -> HeadResults:
    """Results at N tokens, differentiable once in hidden states and weight.

    Args:
        hidden_NH: what the head reads, (N, H); N = 0 gives empty results that stay connected to the graph.
        weight_VH: the head's weight, (V, H), of the same dtype. Its gradient is added up in float32.
        labels_N: (N,) int64 in [0, V).
        teacher, rows_M: M distilled tokens, as in :func:`topk_divergence`; the rows ascend.
        kind, beta, tops: of the divergence.
        temperature_N: divides the logits of each token; None for 1. It is rounded to the logits' dtype.
        entropy: whether to compute it.
        chunk_size: tokens per chunk; None picks it from V. It changes memory and speed only.

    Raises:
        ValueError: shapes or dtypes that do not fit, rows that do not ascend, or what :func:`topk_divergence` refuses.
    """
    if hidden_NH.dim() != 2 or weight_VH.dim() != 2 or hidden_NH.shape[1] != weight_VH.shape[1]:
        raise ValueError(f"hidden {tuple(hidden_NH.shape)} must be (N, H), weight {tuple(weight_VH.shape)} (V, H).")
    if hidden_NH.dtype != weight_VH.dtype:
        raise ValueError(f"hidden states are {hidden_NH.dtype}, the weight {weight_VH.dtype}: cast one.")
    ids, log_p, rows = None, None, torch.empty(0, dtype=torch.int64)
    if teacher is not None:
        if rows_M is None:
            raise ValueError("a teacher needs rows_M, the rows that it is the teacher of.")
        check_pairing(len(hidden_NH), len(weight_VH), teacher, rows_M, kind, beta)
        if not bool((rows_M.diff() > 0).all()):
            raise ValueError("rows must ascend: sort them, and the teacher's rows alike.")
        teacher, rows = teacher.to(hidden_NH.device), rows_M
        ids, log_p = teacher.ids, teacher.log_probs.detach()
    options = _Options(kind, beta, entropy, chunk_size, rows.tolist(), tops)
    rows = to_device(rows, hidden_NH.device)
    found = _FusedHead.apply(hidden_NH, weight_VH, labels_N, ids, log_p, rows, temperature_N, options)
    return HeadResults(found[0], found[1] if entropy else None, None if teacher is None else Divergence(*found[2:]))


@torch.no_grad()
def head_topk(
    hidden_MH: torch.Tensor,
    weight_VH: torch.Tensor,
    k: int | None,
    *,
    labels_M: torch.Tensor | None = None,
    temperature_M: torch.Tensor | None = None,
    chunk_size: int | None = None,
) -> TeacherTopK:
    """The k most likely tokens of M hidden states, as :func:`teacher_topk` finds them in logits.

    Raises:
        ValueError: k outside [1, V].
    """
    k = len(weight_VH) if k is None else k
    chunks = HeadChunks(hidden_MH, weight_VH, temperature_M, chunk_size)
    ids = torch.empty(len(hidden_MH), k, dtype=torch.int64, device=hidden_MH.device)
    log_probs = torch.empty(ids.shape, dtype=working_dtype(hidden_MH.dtype), device=ids.device)
    at_labels = None if labels_M is None else log_probs.new_empty(len(hidden_MH))
    for span in chunks.spans():
        found = teacher_topk(chunks.load(span), k, labels_M=None if labels_M is None else labels_M[span])
        ids[span], log_probs[span] = found.ids, found.log_probs
        if at_labels is not None and found.response_log_probs is not None:
            at_labels[span] = found.response_log_probs
    return TeacherTopK(ids=ids, log_probs=log_probs, response_log_probs=at_labels)


class _FusedHead(torch.autograd.Function):
    """Keeps its inputs, and a logsumexp and an entropy for each token."""

    @staticmethod
    def forward(ctx: Any, hidden_NH, weight_VH, labels_N, ids_MK, log_p_MK, rows_M, temperature_N, options: _Options):
        # The operands have the dtype that they should be multiplied in.
        with torch.autocast(hidden_NH.device.type, enabled=False):
            chunks = HeadChunks(hidden_NH, weight_VH, temperature_N, options.chunk_size)
            new = hidden_NH.new_empty((), dtype=chunks.rows.dtype).new_empty
            log_z_N, log_probs_N, entropy_N = new(len(hidden_NH)), new(len(hidden_NH)), new(len(hidden_NH))
            value_M, student_mass_M, teacher_mass_M = (new(len(options.rows)) for _ in range(3))
            tops_M3T = value_M.new_empty(len(options.rows), 3 * options.tops)
            for span in chunks.spans():
                chunks.load(span)
                block = slice(0, span.stop - span.start)
                log_z_N[span], found = chunks.rows.normaliser(block, options.entropy)
                if found is not None:
                    entropy_N[span] = found
                log_probs_N[span] = chunks.rows.gather(block, labels_N[span, None])[:, 0] - log_z_N[span]
                part = _part(options.rows, span)
                if part.stop > part.start:
                    ids, log_p = ids_MK[part], log_p_MK[part].to(chunks.rows.dtype)
                    log_q = _log_q(chunks, rows_M[part] - span.start, ids, log_z_N[span])
                    mass, vocabulary = log_q.exp().sum(-1), len(weight_VH)
                    rest = rest_of(mass, ids, vocabulary)
                    value_M[part] = divergence_value(options.kind, options.beta, log_p, log_q, rest)
                    student_mass_M[part], teacher_mass_M[part] = mass, log_p.exp().sum(-1)
                    tops_M3T[part] = student_tops(log_q, options.tops)
        tensors = (hidden_NH, weight_VH, labels_N, ids_MK, log_p_MK, rows_M, temperature_N, log_z_N, entropy_N)
        ctx.save_for_backward(*tensors)
        ctx.options = options
        ctx.mark_non_differentiable(student_mass_M, teacher_mass_M, tops_M3T)
        return log_probs_N, entropy_N, value_M.clamp_(min=0.0), student_mass_M, teacher_mass_M, tops_M3T

    @staticmethod
    def backward(ctx: Any, to_log_probs_N, to_entropy_N, to_value_M, *_masses):
        if torch.is_grad_enabled():
            raise RuntimeError("fused_head has no second derivative: call backward without create_graph=True.")
        hidden_NH, weight_VH, labels_N, ids_MK, log_p_MK, rows_M, temperature_N, log_z_N, entropy_N = ctx.saved_tensors
        options = ctx.options
        chunks = HeadChunks(hidden_NH, weight_VH, temperature_N, options.chunk_size)
        if chunks.temperature_N1 is not None:
            of_N = chunks.temperature_N1[:, 0].to(chunks.rows.dtype)
            to_log_probs_N, to_entropy_N = to_log_probs_N / of_N, to_entropy_N / of_N
            to_value_M = to_value_M / of_N[rows_M]
        spans = list(chunks.spans())
        d_hidden = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        d_weight = WeightGradient(weight_VH, len(spans)) if ctx.needs_input_grad[1] else None
        for span in spans:
            part = _part(options.rows, span)
            scales = (to_log_probs_N[span], to_entropy_N[span] if options.entropy else None, to_value_M[part])
            pairs = None if part.stop == part.start else (rows_M[part] - span.start, ids_MK[part], log_p_MK[part])
            dz_CV = _logit_gradient_of_chunk(
                chunks, span, labels_N[span], log_z_N[span], entropy_N[span], pairs, scales, options
            )
            if d_hidden is not None:
                torch.mm(dz_CV, weight_VH, out=d_hidden[span])
            if d_weight is not None:
                d_weight.add(dz_CV, hidden_NH[span])
        return d_hidden, None if d_weight is None else d_weight.result(), None, None, None, None, None, None


def _logit_gradient_of_chunk(
    chunks: HeadChunks,
    span: slice,
    labels_C: torch.Tensor,
    log_z_C: torch.Tensor,
    entropy_C: torch.Tensor,
    pairs: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None,
    scales: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor],
    options: _Options,
) -> torch.Tensor:
    """The gradient of a chunk's undivided logits, (c, V), written over them.

    Every entry is (factor + slope ln q) q plus what its place adds: rounded once, whatever terms meet in it.

    Args:
        pairs: rows within the chunk, ids and log-probabilities of its m distilled tokens.
        scales: what arrives at log-probabilities (c,), entropies (c,) and divergences (m,).
    """
    logits_CV = chunks.load(span)
    to_label, to_entropy, to_value = scales
    factor, slope = -to_label, None
    if to_entropy is not None:
        factor, slope = factor - to_entropy * entropy_C, -to_entropy
    everywhere, at_ids = factor, None
    if pairs is not None:
        rows, ids, log_p = pairs
        log_q = _log_q(chunks, rows, ids, log_z_C)
        rest = rest_of(log_q.exp().sum(-1), ids, logits_CV.shape[1])
        on_s, tail = logit_gradient(options.kind, options.beta, log_p.to(log_q.dtype), log_q, rest)
        at_ids = on_s * to_value[:, None] + _dense(
            log_q, factor[rows, None], None if slope is None else slope[rows, None]
        )
        at_ids = at_ids + torch.where(ids == labels_C[rows, None], to_label[rows, None], 0.0)
        everywhere = factor.index_add(0, rows, tail[:, 0] * to_value)
    block = slice(0, len(logits_CV))
    log_q_label = chunks.rows.gather(block, labels_C[:, None]) - log_z_C[:, None]
    slope_C1 = None if slope is None else slope[:, None]
    at_label = _dense(log_q_label, everywhere[:, None], slope_C1) + to_label[:, None]
    chunks.rows.write_gradient(
        block, log_z_C, labels_C[:, None], at_label, everywhere[:, None], chunks.logits_CV, slope_C1
    )
    if pairs is not None and at_ids is not None:
        logits_CV[rows[:, None], ids] = at_ids.to(logits_CV.dtype)
    return logits_CV


def _dense(log_q: torch.Tensor, factor: torch.Tensor, slope: torch.Tensor | None) -> torch.Tensor:
    """(factor + slope ln q) q."""
    q = log_q.exp()
    return factor * q if slope is None else factor * q + slope * torch.where(q > 0, log_q * q, 0.0)


def _log_q(chunks: HeadChunks, rows_D: torch.Tensor, ids_DK: torch.Tensor, log_z_C: torch.Tensor) -> torch.Tensor:
    """ln q at the ids of some rows of the chunk that is loaded, (D, K)."""
    return chunks.logits_CV[rows_D[:, None], ids_DK].to(chunks.rows.dtype) - log_z_C[rows_D, None]


def _part(rows: list[int], span: slice) -> slice:
    """Which of the ascending rows lie in a span."""
    return slice(bisect_left(rows, span.start), bisect_left(rows, span.stop))
