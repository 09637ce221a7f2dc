"""A moving average of the actor's weights, the teacher of ``hdpo.teacher=ema``.

    average = decay * average + (1 - decay) * weights        after each step's update of the actor

Only the average at the start of a step is ever read, so the decay counts steps: it means the same whatever the number
of mini-batches and epochs in a step is. At 0 the teacher is the drifting one, at 1 the weights that training started
from.

Each rank averages its own shards, in float32 in the host's memory. For the teacher pass the average takes the place of
the weights, and these wait on the host: the accelerator holds one copy of them at any time. All that looks at the
weights has to run inside the engine's ``eval_mode``: outside, verl may have offloaded them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.fsdp._runtime_utils import _lazy_init
from torch.distributed.tensor import DTensor
from verl.utils.device import get_device_name

# Beside the actor's shards in a checkpoint.
FILE = "hdpo_ema_world_size_{}_rank_{}.pt"


class WeightAverage:
    """The average of the trainable weights of one FSDP module, this rank's shards; with LoRA of the adapter alone.

    Attributes:
        decay: weight of the past in each update, in [0, 1].
        shards: by parameter name, float32, on the host (pinned where the device is CUDA).
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.shards = {name: _on_host(shard, torch.float32) for name, shard in local_shards(module)}

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        """Move the average towards the module's weights."""
        for name, shard in local_shards(module):
            # A weight of exactly 1 gives the weights, and one of 0 the average, bit for bit.
            self.shards[name].lerp_(shard.to("cpu", torch.float32), 1.0 - self.decay)

    @contextmanager
    def in_place_of_weights(self, module: torch.nn.Module) -> Iterator[None]:
        """Inside, the module computes with the average; afterwards its weights are what they were, bit for bit."""
        students: dict[str, torch.Tensor] = {}
        try:
            with torch.no_grad():
                for name, shard in local_shards(module):
                    students[name] = _on_host(shard, shard.dtype)
                    shard.copy_(self.shards[name])
            yield
        finally:
            with torch.no_grad():
                for name, shard in local_shards(module):
                    if name in students:
                        shard.copy_(students[name])

    def save(self, folder: str) -> None:
        """Write this rank's shards into the actor's checkpoint folder."""
        torch.save(self.shards, _path(folder))

    def load(self, folder: str) -> None:
        """Read what :meth:`save` wrote on as many ranks.

        Raises:
            ValueError: there is no such file, or it belongs to another model.
        """
        path = _path(folder)
        if not os.path.isfile(path):
            raise ValueError(
                f"hdpo.teacher=ema finds no average of past weights in this checkpoint ({path}): resume from a "
                "checkpoint that was saved with hdpo.teacher=ema on as many ranks, or resume with another teacher"
            )
        found = torch.load(path, weights_only=True)
        wrong = [name for name in self.shards.keys() | found.keys() if not self._fits(found, name)]
        if wrong:
            raise ValueError(
                f"{path} holds the average of another model: {len(wrong)} weights are missing, unknown or of another "
                f"shape, {min(wrong)} among them"
            )
        for name, shard in self.shards.items():
            shard.copy_(found[name])

    def _fits(self, found: dict[str, torch.Tensor], name: str) -> bool:
        return name in found and name in self.shards and found[name].shape == self.shards[name].shape


def local_shards(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and local shard of every trainable weight; writing to a shard changes the weight."""
    give_up_gathered(module)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            weight = parameter.detach()
            yield name, weight.to_local() if isinstance(weight, DTensor) else weight


def give_up_gathered(module: torch.nn.Module) -> None:
    """Let go of weights that a forward has gathered and kept: they would hide what is written to the shards."""
    if isinstance(module, FullyShardedDataParallel):
        _lazy_init(module, module)
        for handle in module._all_handles:
            handle.reshard(handle.uses_sharded_strategy)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def _on_host(shard: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    copy = torch.empty(shard.shape, dtype=dtype, pin_memory=get_device_name() == "cuda")
    return copy.copy_(shard)


def _path(folder: str) -> str:
    world_size, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    return os.path.join(folder, FILE.format(world_size, rank))
