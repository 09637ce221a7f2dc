"""Several training steps of one actor in a row, with checkpoints, on ranks of :mod:`tests.hdpo.training.fsdp_ranks`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from tests.hdpo.training.fsdp_ranks import Job, Row, full_tensor, hand_over, rollout_batch, start_actor


@dataclass
class Step:
    """One step: rollouts by rank, and the kept trajectories of all ranks."""

    rollouts: list[list[Row]]
    kept: list[Row]


@dataclass
class Trace:
    """What rank 0 saw: weights before every step, of the student and of the average, and metrics of every step.

    Weights are whole; under FSDP1 this rank's flat parts of many.
    """

    weights: list[dict[str, torch.Tensor]] = field(default_factory=list)
    averages: list[dict[str, torch.Tensor]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)


def several_steps(rank: int, job: Job, steps: list[Step], load: str | None = None, save: str | None = None) -> Trace:
    """Run steps on one actor.

    Args:
        load, save: checkpoint folder that is read before the first step, and written after the last.
    """
    from torch.distributed.fsdp import _init_utils
    from verl.utils import tensordict_utils as tu

    # On a CPU PyTorch refuses to synchronise the first weights of FSDP1's ranks, which gloo does as well.
    _init_utils._check_module_states_for_sync_module_states = lambda states: None
    # A new adapter is drawn at random.
    torch.manual_seed(0)
    actor = start_actor(job).worker
    trace = Trace()
    if load:
        actor.load_checkpoint(load)
    for step in steps:
        _note(actor, trace)
        job.rollouts = step.rollouts
        data = rollout_batch(job, rank)
        hand_over(actor, step.kept, data)
        output = actor.train_mini_batch(data)
        trace.metrics.append({} if output is None else dict(tu.get(output, "metrics")))
    _note(actor, trace)
    if save:
        actor.save_checkpoint(save)
    return trace


def _note(actor: Any, trace: Trace) -> None:
    with actor.engine.eval_mode():
        _note_weights(actor, trace)


def _note_weights(actor: Any, trace: Trace) -> None:
    from recipe.hdpo.training.weight_average import local_shards

    dict(local_shards(actor.engine.module))
    named = dict(actor.engine.module.named_parameters())
    trace.weights.append({n: full_tensor(p.detach()).clone() for n, p in named.items()})
    if actor.average is not None:
        trace.averages.append({n: _like(named[n], shard) for n, shard in actor.average.shards.items()})


def _like(parameter: torch.Tensor, shard: torch.Tensor) -> torch.Tensor:
    """The whole tensor, of which every rank has a shard as it has one of the parameter."""
    from torch.distributed.tensor import DTensor

    if not isinstance(parameter, DTensor):
        return shard.clone()
    shape = {"shape": parameter.shape, "stride": parameter.stride()}
    whole = DTensor.from_local(shard, parameter.device_mesh, parameter.placements, **shape)
    return whole.full_tensor().clone()
