"""Four places of vLLM that do not suit a CPU that trains as well. Each patch names its target; tests watch them.

1. CPU linear layers repack their weight at load time and drop it, so that no later weight sync can reach it.
2. A process that waits for another one's message yields the core and looks again, without a pause, for up to a second.
   On a few cores it takes time from the very process that it waits for, and from training.
3. verl 0.9.1 asks vLLM 0.25 and later for ``WeightsMapper.get_unstacked_mapper`` when it syncs a LoRA adapter. The CPU
   build is vLLM 0.30, where that mapper is called ``get_rename_mapper``.
4. A CPU engine of one rank has its model in a further process even where ``distributed_executor_backend=uni`` asks for
   none, so that OpenMP threads can be bound to cores. This stack binds none, and that process imports everything once
   more and is spoken to at every token. ``CpuPlatform`` leaves it out under ``VLLM_ENABLE_V1_MULTIPROCESSING=0``, which
   nothing else of a server reads.

``vllm.general_plugins`` entry point: vLLM calls :func:`register` in every one of its processes.
"""

from __future__ import annotations

import os
import time
from typing import Any

# Seconds between two looks for a message; a forward of a small model takes many times as long.
PAUSE = 2e-4


def register() -> None:
    """Apply the patches. A no-op unless ``VERL_PLATFORM=cpu``."""
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import torch
    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.model_executor.layers import utils
    from vllm.model_executor.models.utils import WeightsMapper

    def keep_weight(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = keep_weight
    # vLLM's own way to sleep until it is told (SpinCondition.busy_loop_s = 0) loses notifications of messages that
    # follow one another within a millisecond, and then waits for five seconds.
    shm_broadcast.sched_yield = lambda: time.sleep(PAUSE)
    if not hasattr(WeightsMapper, "get_unstacked_mapper"):
        WeightsMapper.get_unstacked_mapper = WeightsMapper.get_rename_mapper
