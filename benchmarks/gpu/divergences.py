"""Time and peak memory of loss and backward on the device, beside the alternatives, and how near that is to the limit.

    ours            topk_divergence (JSD_k) as it runs in training, by the kernels on CUDA
    ours, PyTorch   the same by PyTorch alone
    plain           the same JSD_k written out over the whole vocabulary with autograd, in float32
    verl, full      verl's compute_forward_kl_topk: another divergence, with a top-k of the student's logits as metric
    verl, chunked   the same with use_chunked_topk=True
    Liger           Liger's JSD of dense log-probabilities, the student's log-softmax included

Ours cannot be faster than three passes over the logits: forward reads them, backward reads them and writes the
gradient. ``share_of_limit`` is the time of these passes, at the rate of a copy on this device, over the time of ours.
The top-k of the teacher, whose limit is one pass, is measured apart. Variants take turns within each round; figures are
medians.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch

from benchmarks import jsd
from benchmarks.gpu.correct import without_kernels
from benchmarks.gpu.recording import Record, part_arguments
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, teacher_topk

Run = Callable[[], object]
BY_PYTORCH = "ours, PyTorch"


def liger() -> jsd.Loss:
    """Liger's JSD; a teacher of probability 0 outside its top-k is a log-probability of -10,000."""
    from liger_kernel.transformers import LigerJSD

    function = LigerJSD(beta=0.5)

    def loss(logits_MV: torch.Tensor, teacher: TeacherTopK) -> torch.Tensor:
        log_p = torch.full_like(logits_MV, -1e4)
        log_p.scatter_(-1, teacher.ids, teacher.log_probs.log_softmax(-1).to(log_p.dtype))
        return function(logits_MV.log_softmax(-1), log_p) * len(logits_MV)

    return loss


def variants(device: str) -> dict[str, Callable[[], jsd.Loss]]:
    """What is compared; Liger's kernel runs on an accelerator only."""
    found: dict[str, Callable[[], jsd.Loss]] = {
        "ours": lambda: jsd.ours,
        BY_PYTORCH: lambda: jsd.ours,
        "plain": lambda: jsd.plain,
        "verl, full": lambda: jsd.verl_forward_kl(chunked=False),
        "verl, chunked": lambda: jsd.verl_forward_kl(chunked=True),
    }
    return found | ({"Liger": liger} if device == "cuda" else {})


def measure(run: Run, device: str) -> tuple[float, float]:
    """Milliseconds (CUDA events; wall clock on a CPU) and extra peak memory in GiB (0 on a CPU) of one run.

    On CUDA a run before it fills PyTorch's cache of memory, as the steps of a training do.
    """
    gc.collect()
    if device == "cpu":
        begin = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - begin), 0.0
    torch.cuda.empty_cache()
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    level = torch.cuda.memory_allocated()
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin_event.record()
    run()
    end_event.record()
    torch.cuda.synchronize()
    return begin_event.elapsed_time(end_event), (torch.cuda.max_memory_allocated() - level) / 2**30


def copy_rate(device: str) -> float:
    """Bytes per millisecond that a copy on the device reads and writes, at its median."""
    source = torch.empty((2**31 if device == "cuda" else 2**24), dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    times = [measure(lambda: target.copy_(source), device)[0] for _ in range(7)]
    return 2 * source.numel() / statistics.median(times[2:])


def compare(record: Record, rows: int, vocabulary: int, k: int, device: str, rate: float, rounds: int) -> None:
    """All variants at one size. One that does not fit the memory is left out of further rounds, and said to."""
    logits, teacher = jsd.make_inputs(rows, vocabulary, k, torch.bfloat16, device)
    losses: dict[str, jsd.Loss] = {}
    for name, make in variants(device).items():
        try:
            losses[name] = make()
        except ImportError as error:
            record.add(f"{rows} rows: {name}", milliseconds=None, why=f"not installed: {error}")

    def backward_of(name: str) -> Run:
        def run() -> None:
            logits.grad = None
            with without_kernels() if name == BY_PYTORCH else nullcontext():
                losses[name](logits, teacher).sum().backward()

        return run

    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in [*losses, "teacher's top-k"]}
    for number in range(1 + rounds):
        for name in list(losses):
            try:
                figures = measure(backward_of(name), device)
            except Exception as error:  # out of memory, or a package that does not run on this card
                del losses[name], runs[name]
                record.add(f"{rows} rows: {name}", milliseconds=None, why=f"{type(error).__name__}: {str(error)[:160]}")
                continue
            finally:
                logits.grad = None
            if number > 0:  # the first round warms up
                runs[name].append(figures)
        topk = measure(lambda: teacher_topk(logits.detach(), k), device)
        if number > 0:
            runs["teacher's top-k"].append(topk)
    one_pass = logits.numel() * logits.element_size() / rate
    passes = {"ours": 3, BY_PYTORCH: 3, "teacher's top-k": 1}
    for name, of_one in runs.items():
        milliseconds, gib = (statistics.median(column) for column in zip(*of_one, strict=True))
        limit = {"share_of_limit": passes[name] * one_pass / milliseconds} if name in passes else {}
        record.add(f"{rows} rows: {name}", milliseconds=milliseconds, extra_gib=gib, **limit)


def main() -> None:
    """Run the part."""
    args = part_arguments(__doc__)
    record = Record(args.out, "divergences", args.device)
    on_card = args.device == "cuda"
    vocabulary, k = (151_936, 64) if on_card else (2_000, 16)
    rate, rounds = copy_rate(args.device), 5 if on_card else 2
    record.setting(vocabulary=vocabulary, k=k, dtype="bf16", rounds=rounds, copy_gb_per_s=rate / 1e6)
    for rows in (8_192, 32_768) if on_card else (64,):
        compare(record, rows, vocabulary, k, args.device, rate, rounds)
    record.finish()


if __name__ == "__main__":
    main()
