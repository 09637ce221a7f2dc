"""Whether the fused head is right on the device: against float64 on the CPU by definition, beside whole logits.

Log-probabilities, entropy, every divergence, and the gradients of one loss that weighs all of them, in hidden states
and weight. ``error`` is the fused head's and ``error_of_logits`` that of the same loss from whole logits of the same
dtype: logits are rounded to that dtype in both. A gradient's error is relative to the largest entry. A case holds if
float32 is exact to its rounding, and if bf16 is no worse than whole logits are.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.correct import DTYPES, KINDS, by_definition, without_kernels
from benchmarks.gpu.recording import Record, part_arguments
from recipe.hdpo.algorithm import softmax_kernels
from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.fused_head import fused_head, head_topk
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK

TOKENS, HIDDEN, CHUNK = 96, 64, 40
TEMPERATURES = (1.0, 0.7)
FP32_LIMIT = 2e-5
NAMES = ("log-probabilities", "entropy", "divergence", "gradient of hidden states", "gradient of the weight")


class Inputs(NamedTuple):
    """Of one dtype on one device; the rows are on the host."""

    hidden_NH: torch.Tensor
    weight_VH: torch.Tensor
    labels_N: torch.Tensor
    teacher: TeacherTopK
    rows_M: torch.Tensor


def make_inputs(vocabulary: int, k: int, dtype: str, device: str) -> Inputs:
    """Logits of about 1; the last half is distilled, and some labels are among the teacher's top-k."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator).to(DTYPES[dtype])
    weight = (torch.randn(vocabulary, HIDDEN, generator=generator) / 4).to(DTYPES[dtype])
    labels = torch.randint(vocabulary, (TOKENS,), generator=generator)
    rows = torch.arange(TOKENS // 2, TOKENS)
    teacher = head_topk((hidden * 1.2)[rows].to(device), weight.to(device), k, chunk_size=CHUNK)
    labels[rows[::5]] = teacher.ids[::5, 3].cpu()
    return Inputs(hidden.to(device), weight.to(device), labels.to(device), teacher, rows)


def differentiate(
    inputs: Inputs, leaves: tuple[torch.Tensor, torch.Tensor], found: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """Values and the gradients of a loss in which every token of every term weighs something else."""
    log_probs, entropy, divergence = found
    weights = torch.linspace(-1.0, 2.0, TOKENS, dtype=log_probs.dtype, device=log_probs.device)
    loss = (log_probs * weights).sum() + 0.5 * (entropy * weights.flip(0)).sum()
    loss = loss + (divergence * weights[: len(divergence)].exp()).sum()
    gradients = torch.autograd.grad(loss, leaves)
    return tuple(t.detach().cpu().double() for t in (*found, *gradients))


def by_fused_head(inputs: Inputs, kind: Any, temperature: float) -> tuple[torch.Tensor, ...]:
    """On the device."""
    leaves = (inputs.hidden_NH.clone().requires_grad_(), inputs.weight_VH.clone().requires_grad_())
    temperature_N = None if temperature == 1.0 else torch.full((TOKENS,), temperature, device=leaves[0].device)
    found = fused_head(
        *leaves, inputs.labels_N, teacher=inputs.teacher, rows_M=inputs.rows_M, kind=kind, entropy=True,
        temperature_N=temperature_N, chunk_size=CHUNK,
    )  # fmt: skip
    assert found.entropy_N is not None and found.divergence is not None
    return differentiate(inputs, leaves, (found.log_probs_N, found.entropy_N, found.divergence.per_token))


def by_logits(inputs: Inputs, kind: Any, temperature: float, exact: bool) -> tuple[torch.Tensor, ...]:
    """From whole logits, on the device in the inputs' dtype; ``exact``: in float64 on the CPU, all by definition."""
    place: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"} if exact else {}
    hidden, weight = (t.detach().clone().to(**place).requires_grad_() for t in inputs[:2])
    # As verl divides: by the temperature in the logits' dtype.
    logits = hidden @ weight.t() / torch.tensor(temperature).to(inputs.hidden_NH.dtype).to(hidden)
    log_q = (logits if exact else logits.float()).log_softmax(-1)
    log_probs = log_q.gather(-1, inputs.labels_N.to(log_q.device)[:, None])[:, 0]
    if exact:
        divergence = by_definition(kind, logits[inputs.rows_M], inputs.teacher.to(torch.device("cpu")))
    else:
        divergence = topk_divergence(logits, inputs.teacher, inputs.rows_M, kind=kind).per_token
    return differentiate(inputs, (hidden, weight), (log_probs, -(log_q.exp() * log_q).sum(-1), divergence))


def errors(found: tuple[torch.Tensor, ...], exact: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """The largest error of each, a gradient's relative to its largest entry."""
    result = {}
    for name, ours, theirs in zip(NAMES, found, exact, strict=True):
        scale = theirs.abs().max().item() if name.startswith("gradient") else 1.0
        result[name] = (ours - theirs).abs().max().item() / scale
    return result


def check_topk(record: Record, inputs: Inputs, name: str, k: int) -> bool:
    """The teacher's top-k from hidden states, in float32 against float64."""
    found = head_topk(inputs.hidden_NH, inputs.weight_VH, k, chunk_size=CHUNK)
    exact = (inputs.hidden_NH.cpu().double() @ inputs.weight_VH.cpu().double().t()).log_softmax(-1)
    error = (found.log_probs.cpu() - exact.gather(-1, found.ids.cpu())).abs().max().item()
    missed = (exact.topk(k).values - exact.gather(-1, found.ids.cpu())).abs().max().item()
    holds = max(error, missed) < FP32_LIMIT
    record.add(name, error=error, missed=missed, holds=holds)
    return holds


def check_all(record: Record, device: str, vocabulary: int, k: int, dtypes: tuple[str, ...] = tuple(DTYPES)) -> bool:
    """Every dtype, kind, temperature and way; writes each and says whether all hold."""
    record.setting(vocabulary=vocabulary, tokens=TOKENS, hidden=HIDDEN, chunk=CHUNK, k=k)
    has_kernels = softmax_kernels.can_run_on(torch.empty(1, 1, device=device))
    holds = [check_topk(record, make_inputs(vocabulary, k, "fp32", device), "teacher's top-k, fp32", k)]
    for dtype in dtypes:
        inputs = make_inputs(vocabulary, k, dtype, device)
        for kind in KINDS:
            for temperature in TEMPERATURES:
                exact = by_logits(inputs, kind, temperature, exact=True)
                of_logits = errors(by_logits(inputs, kind, temperature, exact=False), exact)
                for way in ("kernels", "PyTorch") if has_kernels else ("PyTorch",):
                    with nullcontext() if way == "kernels" else without_kernels():
                        ours = errors(by_fused_head(inputs, kind, temperature), exact)
                    limit = {n: FP32_LIMIT if dtype == "fp32" else 1.5 * of_logits[n] + 1e-3 for n in NAMES}
                    fits = all(ours[n] < limit[n] for n in NAMES)
                    name = f"{kind}, temperature {temperature}, {dtype}, {way}"
                    record.add(name, error=ours, error_of_logits=of_logits, holds=fits)
                    holds.append(fits)
    return all(holds)


def main() -> None:
    """Run the part; exit code 1 where a case does not hold."""
    args = part_arguments(__doc__)
    record = Record(args.out, "head_correct", args.device)
    holds = check_all(record, args.device, *((151_936, 64) if args.device == "cuda" else (500, 16)))
    record.finish()
    sys.exit(None if holds else "not all cases hold")


if __name__ == "__main__":
    main()
