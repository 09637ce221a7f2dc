"""The whole actor update with whole logits and with the fused head, at two sizes of micro-batches.

The model and the batches of ``updates.py``; every prompt's rollouts, alone and with a kept trajectory for each prompt.
Each head's actor runs in a process of its own, so that the peak of memory is its own. A size that does not fit is
recorded as that. The losses of the two have to agree to the rounding of bf16.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.gpu.actor import QWEN_1_5B, TINY, become_the_only_rank, make_job, make_rows, model_folder
from benchmarks.gpu.own_process import from_own_process
from benchmarks.gpu.recording import Record, part_arguments
from benchmarks.gpu.updates import Bench, K
from tests.hdpo.training.fsdp_ranks import Job, Row

Figures = dict[str, Any]
HEADS = {"logits": {}, "fused head": {"fused_head": True}}
AGREE = {"cuda": 0.02, "cpu": 1e-4}


def measure(bench: Bench, job: Job, kept: list[Row], rounds: int) -> Figures:
    """Medians of the rounds after the first, or why there are none."""
    try:
        runs = [bench.update(job, kept) for _ in range(1 + rounds)][1:]
    except torch.OutOfMemoryError as error:
        return {"seconds": None, "why": f"does not fit: {str(error)[:120]}"}
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def measure_head(
    sender: Connection, job: Job, kept: list[Row], sizes: tuple[int, ...], rounds: int, device: str
) -> None:
    """Every size and arm of one head; sends name and figures of each."""
    become_the_only_rank(device)
    bench = Bench(job, device)
    config = bench.actor.worker.engine_config
    for size in sizes:
        config.max_token_len_per_gpu = config.infer_max_token_len_per_gpu = size
        for arm, part in {"no cliff": [], "100 % cliffs": kept}.items():
            sender.send((f"{arm}, {size} tokens a micro-batch", measure(bench, job, part, rounds)))


def agree(logits: Figures, fused: Figures, limit: float) -> bool:
    """Whether losses and gradient norms are finite and about the same; logits that did not fit have none."""
    if "why" in logits or "why" in fused:
        return "why" not in fused
    keys = [key for key in ("policy_loss", "jsd", "grad_norm") if key in logits]
    return all(
        math.isfinite(fused[key]) and math.isclose(logits[key], fused[key], rel_tol=limit, abs_tol=limit)
        for key in keys
    )


def main() -> None:
    """Run the part."""
    args = part_arguments(__doc__)
    on_card = args.device == "cuda"
    record = Record(args.out, "head_updates", args.device)
    shape, scale, prompts, rounds = (QWEN_1_5B, 1.0, 6, 2) if on_card else (TINY, 0.04, 2, 1)
    rng = random.Random(0)
    rollouts = make_rows(rng, K * prompts, scale, shape["vocab_size"])
    kept = make_rows(rng, prompts, scale, shape["vocab_size"], teacher_prompt=True)
    tokens = sum(len(row.prompt) + len(row.response) for row in rollouts)
    sizes = (8_192, 32_768) if on_card else (256,)
    record.setting(prompts=prompts, rollouts=len(rollouts), kept=len(kept), tokens=tokens, rounds=rounds, k=64)
    found: dict[str, dict[str, Figures]] = {head: {} for head in HEADS}
    with model_folder(shape, args.device) as folder:
        for head, knobs in HEADS.items():
            hdpo = {"distillation_loss_coef": 0.1, "topk": 64, **knobs}
            job = replace(make_job(folder, rollouts, args.device, hdpo=hdpo), max_tokens=sizes[0])
            for name, figures in from_own_process(measure_head, job, kept, sizes, rounds, args.device):
                found[head][name] = figures
                record.add(f"{head}: {name}", **figures)
    holds = all(
        agree(figures, found["fused head"][name], AGREE[args.device]) for name, figures in found["logits"].items()
    )
    record.add("losses", agree=holds)
    record.finish()
    sys.exit(None if holds else "the losses of whole logits and of the fused head differ")


if __name__ == "__main__":
    main()
