"""Offloading on a CPU, where moving weights to the host moves nothing: they read as NaN until they are fetched.

So whatever computes with weights that verl has offloaded is found out. FSDP1 needs more on a CPU: PyTorch
refuses to synchronise the first weights of ranks there, which gloo does as well, and pins memory for an accelerator.
"""

from __future__ import annotations

from typing import Any

import torch


def simulate() -> None:
    """Replace verl's moves between host and accelerator in this process, and PyTorch's refusal."""
    from torch.distributed.fsdp import _init_utils
    from verl.workers.engine.base import BaseEngineCtx
    from verl.workers.engine.fsdp import transformer_impl

    _init_utils._check_module_states_for_sync_module_states = lambda states: None
    torch.Tensor.pin_memory = lambda tensor: tensor  # type: ignore[method-assign]
    enter, leave = BaseEngineCtx.__enter__, BaseEngineCtx.__exit__

    def entered(context: Any) -> Any:
        if not context.disable_auto_offload:
            fetch(context.engine)
        return enter(context)

    def left(context: Any, *error: Any) -> Any:
        found = leave(context, *error)
        if not context.disable_auto_offload and context.engine.is_param_offload_enabled:
            put_away(context.engine)
        return found

    BaseEngineCtx.__enter__, BaseEngineCtx.__exit__ = entered, left
    # On a CPU verl takes both ways for "bring it to the device", and gives that device the name cpu:cpu under FSDP1.
    BaseEngineCtx._context_switch = lambda context, device: None
    transformer_impl.load_fsdp_model_to_gpu = lambda module: None


@torch.no_grad()
def put_away(engine: Any) -> None:
    """Keep the shards of all weights aside, and leave NaN in their place."""
    assert not getattr(engine, "on_host", None), "weights that are on the host are offloaded once more"
    for module in engine.module.modules():
        # As PyTorch does before it moves weights: the gathered ones are given up.
        if isinstance(module, torch.distributed.fsdp.FSDPModule):
            module.reshard()
    shards = _shards(engine)
    engine.on_host = [shard.clone() for shard in shards]
    for shard in shards:
        shard.fill_(torch.nan)


@torch.no_grad()
def fetch(engine: Any) -> None:
    """Undo :func:`put_away`, if it was done."""
    for shard, kept in zip(_shards(engine), getattr(engine, "on_host", None) or [], strict=False):
        shard.copy_(kept)
    engine.on_host = None


def _shards(engine: Any) -> list[torch.Tensor]:
    """This rank's part of every weight."""
    parameters = (p.data for p in engine.module.parameters())
    return [p.to_local() if hasattr(p, "to_local") else p for p in parameters]
