"""Several updates between two weight syncs, as verl's separate asynchronous trainer makes them, on ranks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from tests.hdpo.training.fsdp_ranks import Job, hand_over, rollout_batch, start_actor
from tests.hdpo.training.several_steps import Step, Trace, _note


def update_cycle(rank: int, job: Job, steps: list[Step]) -> Trace:
    """The updates of one cycle, each after the cycle's first weights were in place for log-probabilities, and back."""
    from verl.utils import tensordict_utils as tu

    from recipe.hdpo.training.mini_batch import KeptRow
    from recipe.hdpo.training.trainer_async import HDPODetachWorker

    actor = start_actor(job).worker
    worker: Any = object.__new__(HDPODetachWorker)
    worker.actor, worker._strategy_handlers = actor, None
    worker.config = SimpleNamespace(actor=SimpleNamespace(strategy="fsdp2"))
    trace = Trace()
    for update, step in enumerate(steps):
        worker.save_model_to_cpu(update)
        _note(actor, trace)
        if update > 0:
            worker.restore_model_from_cpu(0)
            _note(actor, trace)
            columns = [(r.prompt, r.teacher_prompt, r.response, r.response_mask) for r in step.kept]
            rows = [KeptRow(*map(torch.tensor, row), row_id=i) for i, row in enumerate(columns)]
            actor._read_teacher(rows, temperature=1.0)  # a forward with them
            worker.restore_model_from_cpu(update)
            worker.clear_cpu_model(update)
        job.rollouts = step.rollouts
        data = rollout_batch(job, rank)
        hand_over(actor, step.kept, data)
        output = actor.train_mini_batch(data)
        trace.metrics.append({} if output is None else dict(tu.get(output, "metrics")))
    _note(actor, trace)
    return trace
