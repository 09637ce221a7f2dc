"""The whole actor update with whole logits and with the fused head, at two sizes of micro-batches.

The model and the batches of ``updates.py``; every prompt's rollouts, alone and with a kept trajectory for each prompt.
One actor after the other, so that the peak of memory is its own. A size that does not fit is recorded as that. The
losses of the two have to agree to the rounding of bf16.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import sys
from dataclasses import replace

import torch

from benchmarks.gpu.actor import QWEN_1_5B, TINY, become_the_only_rank, make_job, make_rows, model_folder
from benchmarks.gpu.recording import Record, part_arguments
from benchmarks.gpu.updates import Bench, K
from tests.hdpo.training.fsdp_ranks import Job, Row

HEADS = {"logits": {}, "fused head": {"fused_head": True}}
AGREE = {"cuda": 0.02, "cpu": 1e-4}


def measure(record: Record, name: str, bench: Bench, job: Job, kept: list[Row], rounds: int) -> dict[str, float] | str:
    """Medians of the rounds after the first, or why there are none."""
    runs: list[dict[str, float]] = []
    try:
        for number in range(1 + rounds):
            figures = bench.update(job, kept)
            if number > 0:
                runs.append(figures)
    except torch.OutOfMemoryError as error:
        record.add(name, seconds=None, why=f"does not fit: {str(error)[:120]}")
        return "does not fit"
    found = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    record.add(name, **found)
    return found


def agree(logits: dict[str, float] | str, fused: dict[str, float] | str, limit: float) -> bool:
    """Whether losses and gradient norms are finite and about the same; what did not fit has none."""
    if isinstance(logits, str) or isinstance(fused, str):
        return not isinstance(fused, str)
    keys = [key for key in ("policy_loss", "jsd", "grad_norm") if key in logits]
    return all(
        math.isfinite(fused[key]) and math.isclose(logits[key], fused[key], rel_tol=limit, abs_tol=limit)
        for key in keys
    )


def main() -> None:
    """Run the part."""
    args = part_arguments(__doc__)
    on_card = args.device == "cuda"
    become_the_only_rank(args.device)
    record = Record(args.out, "head_updates", args.device)
    shape, scale, prompts, rounds = (QWEN_1_5B, 1.0, 6, 2) if on_card else (TINY, 0.04, 2, 1)
    rng = random.Random(0)
    rollouts = make_rows(rng, K * prompts, scale, shape["vocab_size"])
    kept = make_rows(rng, prompts, scale, shape["vocab_size"], teacher_prompt=True)
    tokens = sum(len(row.prompt) + len(row.response) for row in rollouts)
    sizes = (8_192, 32_768) if on_card else (256,)
    record.setting(prompts=prompts, rollouts=len(rollouts), kept=len(kept), tokens=tokens, rounds=rounds, k=64)
    found: dict[tuple[str, str], dict[str, float] | str] = {}
    with model_folder(shape, args.device) as folder:
        for head, knobs in HEADS.items():
            hdpo = {"distillation_loss_coef": 0.1, "topk": 64, **knobs}
            job = replace(make_job(folder, rollouts, args.device, hdpo=hdpo), max_tokens=sizes[0])
            bench = Bench(job, args.device)
            for size in sizes:
                config = bench.actor.worker.engine_config
                config.max_token_len_per_gpu = config.infer_max_token_len_per_gpu = size
                for arm, part in {"no cliff": [], "100 % cliffs": kept}.items():
                    name = f"{arm}, {size} tokens a micro-batch"
                    found[head, name] = measure(record, f"{head}: {name}", bench, job, part, rounds)
            del bench
            gc.collect()
            if on_card:
                torch.cuda.empty_cache()
    pairs = [(found["logits", name], of) for (head, name), of in found.items() if head == "fused head"]
    holds = all(agree(*pair, AGREE[args.device]) for pair in pairs)
    record.add("losses", agree=holds)
    record.finish()
    sys.exit(None if holds else "the losses of whole logits and of the fused head differ")


if __name__ == "__main__":
    main()
