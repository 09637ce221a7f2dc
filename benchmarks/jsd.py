"""Time and extra memory of the token-level divergence, loss plus backward, beside the alternatives.

    python -m benchmarks.jsd                                 # 4,096 tokens x 151,936 ids, k = 64, bf16 logits
    python -m benchmarks.jsd --tokens 256 --out jsd.json

Variants, all on the same student logits and the same teacher top-k:

    ours          recipe.hdpo.algorithm.divergence.topk_divergence (JSD_k)
    plain         the same JSD_k written out over the whole vocabulary with autograd, in float32
    verl_full     verl's compute_forward_kl_topk, default path (a log-softmax over the vocabulary)
    verl_chunked  the same with use_chunked_topk=True
    head_logits   from hidden states: the head's product, then ours
    head_fused    from hidden states: recipe.hdpo.algorithm.fused_head.fused_head, which never makes the logits

The last two start before the logits, and their backward goes on to hidden states and the head's weight: compare them
with one another. The fused head gives log-probabilities as well. They run when asked for, since a product in bf16 takes
minutes on many CPUs:

    python -m benchmarks.jsd --tokens 1024 --dtype fp32 --variants ours head_logits head_fused

verl's function computes another divergence (a forward KL without a tail) and, for its overlap metric, a top-k
of the student's logits. The time of that top-k alone is measured too, so that it can be taken off.

Method. The variants take turns within each round, so that other load on the machine meets all of them;
figures are medians over the rounds. Time is wall clock around loss and backward, with the device synchronised;
CPU seconds are the process's own. Extra memory is the peak above the level just before, when logits and teacher
already exist; the gradient of the logits is part of it. On CUDA it is torch.cuda.max_memory_allocated. On a
CPU it is the kernel's high-water mark of resident memory (VmHWM), reset before each run through
/proc/self/clear_refs after the allocator has handed its free pages back: exact to a few MiB, Linux only.

Every variant first runs on a few rows. From that the need at full size is extrapolated, and the number of
tokens is halved, for all variants alike, until the hungriest one fits into --memory-fraction of the free memory.
"""

import argparse
import ctypes
import gc
import json
import math
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from tqdm import tqdm

from benchmarks.jsd_head import Head, head_fused, head_logits, make_head
from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, teacher_topk

Loss = Callable[[torch.Tensor, TeacherTopK], torch.Tensor]
Figures = dict[str, float]

MEMORY_TARGET = 0.25  # ours / plain, extra memory
TIME_TARGET = 1.0  # ours / the faster of verl's two paths
PROBE_TOKENS = 128
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def ours(logits_NV: torch.Tensor, teacher: TeacherTopK) -> torch.Tensor:
    rows = torch.arange(len(logits_NV), device=logits_NV.device)
    return topk_divergence(logits_NV, teacher, rows).per_token


def plain(logits_NV: torch.Tensor, teacher: TeacherTopK) -> torch.Tensor:
    """JSD between the truncated, renormalised teacher and the full student, as one would write it first."""
    log_q = F.log_softmax(logits_NV.float(), dim=-1)
    p = torch.zeros_like(log_q).scatter_(-1, teacher.ids, teacher.log_probs.softmax(-1))
    log_m = (0.5 * (p + log_q.exp()) + torch.finfo(p.dtype).tiny).log()
    teacher_part = F.kl_div(log_m, p, reduction="none").sum(-1)
    student_part = F.kl_div(log_m, log_q, reduction="none", log_target=True).sum(-1)
    return 0.5 * (teacher_part + student_part)


def verl_forward_kl(chunked: bool) -> Loss:
    """verl's own top-k loss under its default settings."""
    from verl.trainer.distillation.fsdp.losses import compute_forward_kl_topk
    from verl.workers.config import DistillationLossConfig

    settings = DistillationLossConfig(loss_mode="forward_kl_topk", use_policy_gradient=False, use_chunked_topk=chunked)
    config = SimpleNamespace(distillation_loss=settings)

    def loss(logits_NV: torch.Tensor, teacher: TeacherTopK) -> torch.Tensor:
        ids = torch.nested.as_nested_tensor([teacher.ids], layout=torch.jagged)
        log_probs = torch.nested.as_nested_tensor([teacher.log_probs], layout=torch.jagged)
        outputs = compute_forward_kl_topk(logits_NV[None], log_probs, ids, config, data_format="thd")
        return outputs["distillation_losses"][0]

    return loss


VARIANTS: dict[str, Callable[[], Loss]] = {
    "ours": lambda: ours,
    "plain": lambda: plain,
    "verl_full": lambda: verl_forward_kl(chunked=False),
    "verl_chunked": lambda: verl_forward_kl(chunked=True),
}
# These read hidden states and the head's weight in the place of logits.
HEAD_VARIANTS = {"head_logits": head_logits, "head_fused": head_fused}
ALL = [*VARIANTS, *HEAD_VARIANTS]


def make_inputs(tokens: int, vocab: int, k: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, TeacherTopK]:
    """Student logits (tokens, vocab) that ask for a gradient, and the top-k of a slightly different teacher."""
    torch.manual_seed(0)
    logits = torch.empty(tokens, vocab, dtype=dtype, device=device).normal_(std=3.0)
    parts = [teacher_topk(rows + 0.5 * torch.randn_like(rows), k) for rows in logits.split(16)]
    ids, log_probs = torch.cat([part.ids for part in parts]), torch.cat([part.log_probs for part in parts])
    return logits.requires_grad_(), TeacherTopK(ids, log_probs)


def measure(run: Callable[[], object], device: str) -> Figures:
    """Wall and CPU seconds of one run, and its memory peak in bytes above the level before it."""
    level = _reset_peak(device)
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"seconds": wall, "cpu_seconds": cpu, "extra_bytes": _peak(device) - level}


@dataclass
class Bench:
    """What all variants read: a teacher, and logits or, from another random model, hidden states and a head."""

    logits_NV: torch.Tensor
    teacher: TeacherTopK
    head: Head

    @classmethod
    def make(cls, args: argparse.Namespace, tokens: int) -> "Bench":
        dtype = DTYPES[args.dtype]
        logits, teacher = make_inputs(tokens, args.vocab, args.k, dtype, args.device)
        return cls(logits, teacher, make_head(tokens, args.vocab, args.hidden, dtype, args.device))

    def measure(self, name: str, losses: dict[str, Loss]) -> Figures:
        """`measure` of a variant's loss and its backward; leaves no gradient behind."""
        if name in HEAD_VARIANTS:
            run = lambda: HEAD_VARIANTS[name](self.head, self.teacher).sum().backward()  # noqa: E731
        else:
            run = lambda: losses[name](self.logits_NV, self.teacher).sum().backward()  # noqa: E731
        figures = measure(run, self.logits_NV.device.type)
        self.logits_NV.grad = None
        self.head.clear()
        return figures


def _reset_peak(device: str) -> int:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _peak(device)


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def fit_tokens(args: argparse.Namespace, losses: dict[str, Loss], dtype: torch.dtype) -> int:
    """The number of tokens, halved until the logits and the hungriest variant fit into the free memory."""
    probe = min(args.tokens, PROBE_TOKENS)
    bench = Bench.make(args, probe)
    # The fused head's need does not grow with the tokens.
    growing = [name for name in args.variants if name != "head_fused"]
    needs = {name: bench.measure(name, losses)["extra_bytes"] / probe for name in growing} or {"logits": 0.0}
    hungriest = max(needs, key=lambda name: needs[name])
    per_token = needs[hungriest] + args.vocab * dtype.itemsize
    free = torch.cuda.mem_get_info()[0] if args.device == "cuda" else psutil.virtual_memory().available
    tokens = args.tokens
    while tokens > 1 and tokens * per_token > args.memory_fraction * free:
        tokens //= 2
    if tokens < args.tokens:
        print(
            f"Scaled down from {args.tokens} to {tokens} tokens: {hungriest} needs about "
            f"{args.tokens * per_token / 2**30:.1f} GiB with the logits, {free / 2**30:.1f} GiB are free."
        )
    return tokens


def run_benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the variants, taking turns; returns what --out stores."""
    dtype = DTYPES[args.dtype]
    losses = {name: VARIANTS[name]() for name in args.variants if name in VARIANTS}
    tokens = fit_tokens(args, losses, dtype)
    bench = Bench.make(args, tokens)
    runs: dict[str, list[Figures]] = {name: [] for name in [*args.variants, "student_topk"]}
    for _ in tqdm(range(args.repeats), desc="rounds", unit="round"):
        for name in args.variants:
            runs[name].append(bench.measure(name, losses))
        runs["student_topk"].append(measure(lambda: bench.logits_NV.detach().topk(args.k), args.device))
    medians = {
        name: {key: statistics.median(run[key] for run in of_one) for key in of_one[0]} for name, of_one in runs.items()
    }
    setting = {**vars(args), "tokens": tokens, "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {"setting": setting, "medians": medians, "ratios": ratios(medians), "runs": runs}


def _over(ours: float, theirs: float) -> float:
    return ours / theirs if theirs else math.nan


def ratios(medians: dict[str, Figures]) -> Figures:
    """Our medians over the others', for the variants that were run; nan where theirs was too small to be measured."""
    found: Figures = {}
    mine = medians.get("ours")
    if mine and "plain" in medians:
        found["memory_vs_plain"] = _over(mine["extra_bytes"], medians["plain"]["extra_bytes"])
        found["time_vs_plain"] = mine["seconds"] / medians["plain"]["seconds"]
    paths = [medians[name] for name in ("verl_full", "verl_chunked") if name in medians]
    if mine and paths:
        faster = min(paths, key=lambda path: path["seconds"])
        found["time_vs_verl_faster"] = mine["seconds"] / faster["seconds"]
        found["cpu_time_vs_verl_faster"] = _over(mine["cpu_seconds"], min(path["cpu_seconds"] for path in paths))
        found["memory_vs_verl_leaner"] = _over(mine["extra_bytes"], min(path["extra_bytes"] for path in paths))
        without_topk = faster["seconds"] - medians["student_topk"]["seconds"]
        found["time_vs_verl_faster_less_its_topk"] = mine["seconds"] / without_topk
    if "head_logits" in medians and "head_fused" in medians:
        fused, whole = medians["head_fused"], medians["head_logits"]
        found["fused_head_memory_vs_logits"] = _over(fused["extra_bytes"], whole["extra_bytes"])
        found["fused_head_time_vs_logits"] = fused["seconds"] / whole["seconds"]
    return found


def report(result: dict[str, Any]) -> str:
    """The table, the ratios and whether the targets hold."""
    setting, found = result["setting"], result["ratios"]
    lines = [
        f"{setting['tokens']} tokens x {setting['vocab']} ids, k = {setting['k']}, {setting['dtype']} logits",
        f"{setting['device']}, {setting['threads']} threads, median of {setting['repeats']} rounds",
        f"{'variant':<14}{'seconds':>10}{'CPU s':>10}{'extra MiB':>12}",
    ]
    for name, median in result["medians"].items():
        mib = median["extra_bytes"] / 2**20
        lines.append(f"{name:<14}{median['seconds']:>10.3f}{median['cpu_seconds']:>10.3f}{mib:>12.0f}")
    lines += [f"{name:<36}{ratio:.3f}" for name, ratio in found.items()]
    for ratio, target in (("memory_vs_plain", MEMORY_TARGET), ("time_vs_verl_faster", TIME_TARGET)):
        if ratio in found:
            verdict = "holds" if found[ratio] <= target else "MISSED"
            lines.append(f"target {ratio} <= {target}: {verdict}")
    return "\n".join(lines)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time and memory of the top-k divergence beside alternatives.")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=64, help="width of the hidden states that the head variants read")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16", help="dtype of the student's logits")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; figures are medians over them")
    parser.add_argument("--variants", nargs="+", choices=ALL, default=list(VARIANTS))
    parser.add_argument("--memory-fraction", type=float, default=0.8, help="share of the free memory to use")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; PyTorch's default if left out")
    parser.add_argument("--out", type=Path, default=None, help="where to write the figures as JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    result = run_benchmark(args)
    print(report(result))
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")
        print(f"Figures written to {args.out}")


if __name__ == "__main__":
    main()
