"""Whether the divergence is right on the device: values and gradients against float64 on the CPU, by definition.

Every case runs by the kernels, where the device has them, and by PyTorch alone. An error is the largest over all
entries; a gradient's is relative to the largest entry that float64 gives. A case holds if values agree to float32's
rounding, and gradients to one rounding of the logits' dtype.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.recording import Record, part_arguments
from recipe.hdpo.algorithm import softmax_kernels
from recipe.hdpo.algorithm.divergence import DivergenceKind, topk_divergence
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, teacher_topk

KINDS: tuple[DivergenceKind, ...] = ("jsd", "forward_kl", "reverse_kl")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ROWS = 12
VALUE_LIMIT = 2e-5
GRADIENT_LIMIT = {"fp32": 2e-5, "bf16": 2**-8 + 2e-5}


class Case(NamedTuple):
    """Logits of both sides on the CPU, (N, V), the columns that are not -inf, the rows that are compared, and k."""

    student_NV: torch.Tensor
    teacher_NV: torch.Tensor
    finite_V: torch.Tensor
    rows_M: torch.Tensor
    k: int


def cases(vocabulary: int, small: int) -> Iterator[tuple[str, Case]]:
    """What can go wrong at a large vocabulary, and at one that is small enough for k = V."""
    generator = torch.Generator().manual_seed(0)

    def case(size: int, k: int, rows: list[int], *, ties: bool = False, every_third_masked: bool = False) -> Case:
        student = 3 * torch.randn(ROWS, size, generator=generator)
        teacher = student + 0.5 * torch.randn(ROWS, size, generator=generator)
        if ties:
            teacher = (teacher / 2).round() * 2
        finite = torch.ones(size, dtype=torch.bool)
        finite[1::3] = not every_third_masked
        student, teacher = (logits.masked_fill(~finite, -torch.inf) for logits in (student, teacher))
        return Case(student, teacher, finite, torch.tensor(rows), k)

    every_row = list(range(ROWS))
    yield "k = 64", case(vocabulary, 64, every_row)
    yield "k = 64, rows out of order", case(vocabulary, 64, [5, 11, 0, 7, 6, 2])
    yield "k = 1", case(vocabulary, 1, every_row)
    yield "k = 64, ties", case(vocabulary, 64, every_row, ties=True)
    yield "k = 64, a third is -inf", case(vocabulary, 64, every_row, every_third_masked=True)
    yield "k = V", case(small, small, every_row)


def by_definition(kind: str, student_MV: torch.Tensor, teacher: TeacherTopK) -> torch.Tensor:
    """(M,) float64 of finite logits, for autograd to differentiate."""
    log_q, log_p = student_MV.double().log_softmax(-1), teacher.log_probs.double()
    if kind == "reverse_kl":
        on_s = log_q.gather(-1, teacher.ids)
        value = (on_s.exp() * (on_s - log_p)).sum(-1)
        if teacher.ids.shape[1] == student_MV.shape[1]:
            return value
        rest, rest_of_teacher = 1 - on_s.exp().sum(-1), 1 - log_p.exp().sum(-1)
        return value + rest * (rest.log() - rest_of_teacher.log())
    p, q = torch.zeros_like(log_q).scatter(-1, teacher.ids, log_p.softmax(-1)), log_q.exp()
    if kind == "forward_kl":
        return (torch.xlogy(p, p) - p * log_q).sum(-1)
    m = (p + q) / 2
    return 0.5 * (torch.xlogy(p, p) - p * m.log() + q * (log_q - m.log())).sum(-1)


def teacher_errors(case: Case, found: TeacherTopK) -> tuple[bool, TeacherTopK]:
    """Whether the ids are of k largest logits, ties falling either way; the ids with float64 log-probabilities."""
    logits_MV, ids = case.teacher_NV[case.rows_M], found.ids.cpu()
    chosen = logits_MV.gather(-1, ids).sort(descending=True).values
    distinct = bool((ids.sort().values.diff() > 0).all())
    is_largest = distinct and torch.equal(chosen, logits_MV.topk(case.k).values)
    return is_largest, TeacherTopK(ids, logits_MV.double().log_softmax(-1).gather(-1, ids))


def check(record: Record, name: str, case: Case, dtype: str, device: str) -> bool:
    """All kinds of one case; the reference's teacher has the ids that the device chose."""
    case = case._replace(student_NV=case.student_NV.to(DTYPES[dtype]), teacher_NV=case.teacher_NV.to(DTYPES[dtype]))
    teacher = teacher_topk(case.teacher_NV.to(device), case.k, rows_M=case.rows_M)
    is_largest, exact_teacher = teacher_errors(case, teacher)
    teacher_error = (teacher.log_probs.cpu() - exact_teacher.log_probs).abs().max().item()
    holds = is_largest and teacher_error < VALUE_LIMIT
    record.add(f"{name}: teacher's top-k", error=teacher_error, largest=is_largest, holds=holds)
    weights_M = torch.linspace(0.5, 2.0, len(case.rows_M), dtype=torch.float64)
    # On the finite columns alone: elsewhere the gradient has to be 0.
    column = case.finite_V.cumsum(0) - 1
    compact = TeacherTopK(column[exact_teacher.ids], exact_teacher.log_probs)
    for kind in KINDS:
        exact_MV = case.student_NV[case.rows_M][:, case.finite_V].double().requires_grad_()
        exact_M = by_definition(kind, exact_MV, compact)
        expected_NV = torch.zeros(case.student_NV.shape, dtype=torch.float64)
        gradient_MV = torch.autograd.grad((exact_M * weights_M).sum(), exact_MV)[0]
        rows, columns = case.rows_M[:, None], case.finite_V.nonzero().squeeze(1)[None]
        expected_NV[rows, columns] = gradient_MV
        logits = case.student_NV.to(device, copy=True).requires_grad_()
        found = topk_divergence(logits, teacher, case.rows_M, kind=kind).per_token
        gradient = torch.autograd.grad((found * weights_M.to(device)).sum(), logits)[0].cpu().double()
        value_error = (found.detach().cpu() - exact_M.detach()).abs().max().item()
        gradient_error = ((gradient - expected_NV).abs().max() / expected_NV.abs().max()).item()
        fits = value_error < VALUE_LIMIT and gradient_error < GRADIENT_LIMIT[dtype]
        record.add(f"{name}: {kind}", value_error=value_error, gradient_error=gradient_error, holds=fits)
        holds = holds and fits
    return holds


class _OverwriteLogits(torch.autograd.Function):
    """Like a cross entropy that writes its gradient over the logits, unseen by autograd's version counter."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor) -> torch.Tensor:
        ctx.alias = logits.detach()
        return logits.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> torch.Tensor:
        ctx.alias.data.fill_(0.25)
        return ctx.alias.data


def check_protected(record: Record, name: str, case: Case, dtype: str, device: str) -> bool:
    """Logits that another term overwrites during backward get the sum of both gradients; unprotected they do not."""
    logits = case.student_NV.to(DTYPES[dtype]).to(device)
    teacher = teacher_topk(case.teacher_NV.to(device), case.k, rows_M=case.rows_M)
    alone = logits.clone().requires_grad_()
    topk_divergence(alone, teacher, case.rows_M).per_token.sum().backward()
    assert alone.grad is not None
    errors = {}
    for protect in (True, False):
        leaf = logits.clone().requires_grad_()
        shared = leaf * 1
        per_token = topk_divergence(shared, teacher, case.rows_M, protect_logits=protect).per_token
        (per_token.sum() + _OverwriteLogits.apply(shared)).backward()
        assert leaf.grad is not None
        errors[protect] = (leaf.grad.double() - 0.25 - alone.grad.double()).abs().max().item()
    limit = 0.25 * torch.finfo(DTYPES[dtype]).eps
    holds = errors[True] <= limit < errors[False]
    record.add(name, error=errors[True], error_unprotected=errors[False], holds=holds)
    return holds


def check_beside_log_probs(record: Record, name: str, case: Case, dtype: str, device: str) -> bool:
    """The gradient of logits that verl's log-probabilities read too is the sum of both, whatever verl does with them.

    The two are made and added as verl's engine does; with flash-attn verl's backward writes over the logits.
    """
    from verl.utils.torch_functional import logprobs_from_logits

    from recipe.hdpo.training.loss import log_prob_backward_overwrites_logits

    logits = case.student_NV.to(DTYPES[dtype]).to(device)
    teacher = teacher_topk(case.teacher_NV.to(device), case.k, rows_M=case.rows_M)
    labels = torch.arange(len(logits), device=device)
    overwrites = log_prob_backward_overwrites_logits(logits)

    def gradient(*terms: str) -> torch.Tensor:
        leaf = logits.clone().requires_grad_()
        shared, loss = leaf * 1, torch.zeros((), device=device)
        if "divergence" in terms:
            loss = loss + topk_divergence(shared, teacher, case.rows_M, protect_logits=overwrites).per_token.sum()
        if "log-probabilities" in terms:
            loss = loss + logprobs_from_logits(shared, labels, inplace_backward=True).sum()
        loss.backward()
        assert leaf.grad is not None
        return leaf.grad.double()

    expected = gradient("divergence") + gradient("log-probabilities")
    error = ((gradient("divergence", "log-probabilities") - expected).abs().max() / expected.abs().max()).item()
    holds = error <= 2 * torch.finfo(DTYPES[dtype]).eps
    record.add(name, gradient_error=error, overwrites=overwrites, holds=holds)
    return holds


@contextmanager
def without_kernels() -> Iterator[None]:
    """PyTorch's path alone."""
    original = softmax_kernels.can_run_on
    softmax_kernels.can_run_on = lambda logits: False
    try:
        yield
    finally:
        softmax_kernels.can_run_on = original


def check_all(record: Record, device: str, vocabulary: int, small: int) -> bool:
    """Every case, dtype and way; writes each and says whether all hold."""
    record.setting(vocabulary=vocabulary, small_vocabulary=small, rows=ROWS)
    has_kernels = softmax_kernels.can_run_on(torch.empty(1, 1, device=device))
    holds = []
    for case_name, case in cases(vocabulary, small):
        for dtype in DTYPES:
            if has_kernels:
                holds.append(check(record, f"{case_name}, {dtype}, kernels", case, dtype, device))
            with without_kernels():
                holds.append(check(record, f"{case_name}, {dtype}, PyTorch", case, dtype, device))
            if case_name.startswith("k = 64") and case.finite_V.all():
                of = (case, dtype, device)
                holds.append(check_protected(record, f"{case_name}, {dtype}: overwritten logits", *of))
                holds.append(
                    check_beside_log_probs(record, f"{case_name}, {dtype}: with verl's log-probabilities", *of)
                )
    return all(holds)


def main() -> None:
    """Run the part; exit code 1 where a case does not hold."""
    args = part_arguments(__doc__)
    if args.device == "cpu":
        os.environ["VERL_PLATFORM"] = "cpu"
    record = Record(args.out, "correct", args.device)
    on_card = args.device == "cuda"
    holds = check_all(record, args.device, 151_936 if on_card else 500, 512 if on_card else 50)
    record.finish()
    sys.exit(None if holds else "not all cases hold")


if __name__ == "__main__":
    main()
