"""The whole actor update on one device: GRPO's against HDPO's at 0, 25 and 100 % cliffs.

verl's FSDP2 engine on Qwen2.5-Math-1.5B's shape with random weights: bf16, gradient checkpointing, packed rows, dynamic
micro-batches, sdpa; K = 16, J = 1, every privileged rollout kept. The learning rate is 0, so that every update starts
from the same weights. Arms take turns; figures are medians over the rounds after the first.

``policy_loss`` of GRPO (verl's own loss function) and of HDPO without a cliff, which is also that of lambda = 0, have
to be equal bit for bit.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.actor import QWEN_1_5B, TINY, become_the_only_rank, make_job, make_rows, model_folder
from benchmarks.gpu.recording import Record, part_arguments
from tests.hdpo.training.fsdp_ranks import Actor, Job, Row, hand_over, rollout_batch, start_actor

K = 16
ARMS = {"GRPO": None, "HDPO, no cliff": 0.0, "HDPO, 25 % cliffs": 0.25, "HDPO, 100 % cliffs": 1.0}
# Of the part's time, for all updates; start-up takes the rest.
SECONDS = 90.0


class Bench:
    """One actor, and its updates of either kind."""

    def __init__(self, job: Job, device: str) -> None:
        from verl.workers.utils.losses import ppo_loss

        self.job, self.device = job, device
        self.actor: Actor = start_actor(job)
        self.stock_loss = partial(ppo_loss, config=self.actor.loss.actor_config)

    def update(self, job: Job, kept: list[Row] | None) -> dict[str, float]:
        """Seconds, peak memory in GiB, and verl's metrics of one update; ``kept`` is None for verl's own loss."""
        from verl.utils import tensordict_utils as tu
        from verl.workers.engine_workers import TrainingWorker

        worker, data = self.actor.worker, rollout_batch(job, 0)
        self._synchronize()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        if kept is None:
            worker.mini_batch_rows, worker.updates = [], 0
            worker.set_loss_fn(self.stock_loss)
            output = TrainingWorker.train_mini_batch(worker, data)
        else:
            hand_over(worker, kept, data)
            worker.set_loss_fn(self.actor.loss)
            output = worker.train_mini_batch(data)
        self._synchronize()
        seconds = time.perf_counter() - begin
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.device == "cuda" else 0.0
        return {"seconds": seconds, "peak_gib": peak} | _numbers(tu.get(output, "metrics"))

    def _synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """One number for each of the metrics that are recorded."""
    names = {
        "actor/pg_loss": "policy_loss",
        "hdpo/jsd_mean": "jsd",
        "grad_norm": "grad_norm",
        "hdpo/timing_s/teacher_pass": "teacher_pass_seconds",
    }
    found = {}
    for name, short in names.items():
        if name in metrics:
            value = metrics[name]
            value = value[0] if isinstance(value, list) else value
            found[short] = float(value.aggregate() if hasattr(value, "aggregate") else value)
    return found


def affordable_prompts(bench: Bench, job: Job, wanted: int, updates: int) -> int:
    """How many of the wanted prompts keep all updates within the time, from one update of one prompt's rollouts."""
    one = replace(job, rollouts=[job.rollouts[0][:K]])
    bench.update(one, None)
    seconds = bench.update(one, None)["seconds"]
    prompts = wanted
    while prompts > 4 and prompts * seconds * updates > SECONDS:
        prompts //= 2
    return prompts


def compare(record: Record, bench: Bench, job: Job, kept: list[Row], rounds: int) -> bool:
    """All arms, taking turns; says whether the losses are finite and those that have to be equal are."""
    runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for number in range(1 + rounds):
        for arm, share in ARMS.items():
            part = None if share is None else kept[: round(share * len(kept))]
            figures = bench.update(job, part)
            if number > 0:
                runs[arm].append(figures)
            record.add(
                arm, **{name: statistics.median(run[name] for run in runs[arm] or [figures]) for name in figures}
            )
    losses = {arm: {run["policy_loss"] for run in of_one} for arm, of_one in runs.items()}
    is_finite = all(math.isfinite(value) for of_one in runs.values() for run in of_one for value in run.values())
    is_equal = losses["GRPO"] == losses["HDPO, no cliff"] and len(losses["GRPO"]) == 1
    record.add("losses", finite=is_finite, grpo_and_lambda_0_equal_bit_for_bit=is_equal)
    return is_finite and is_equal


def main() -> None:
    """Run the part."""
    args = part_arguments(__doc__)
    on_card = args.device == "cuda"
    become_the_only_rank(args.device)
    record = Record(args.out, "updates", args.device)
    shape, scale, prompts, rounds = (QWEN_1_5B, 1.0, 32, 3) if on_card else (TINY, 0.04, 4, 1)
    rng = random.Random(0)
    rollouts = make_rows(rng, K * prompts, scale, shape["vocab_size"])
    kept = make_rows(rng, prompts, scale, shape["vocab_size"], teacher_prompt=True)
    with model_folder(shape, args.device) as folder:
        job = make_job(folder, rollouts, args.device, hdpo={"distillation_loss_coef": 0.1, "topk": 64})
        bench = Bench(job, args.device)
    from verl.utils import torch_functional as verl_F

    record.setting(
        cross_entropy="flash-attn" if verl_F.FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE else "verl's loop over rows"
    )
    wanted, prompts = prompts, affordable_prompts(bench, job, prompts, len(ARMS) * (1 + rounds))
    job = replace(job, rollouts=[rollouts[: K * prompts]])
    tokens = sum(len(row.prompt) + len(row.response) for row in job.rollouts[0])
    record.setting(prompts=prompts, prompts_wanted=wanted, rollouts=K * prompts, tokens=tokens, rounds=rounds)
    record.setting(max_tokens_per_micro_batch=job.max_tokens, k=64, J=1, dtype=job.dtype)
    holds = compare(record, bench, job, kept[:prompts], rounds)
    record.finish()
    sys.exit(None if holds else "a loss is not finite, or GRPO's and that of lambda = 0 differ")


if __name__ == "__main__":
    main()
