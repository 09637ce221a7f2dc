"""Two places of vLLM that do not suit a CPU that trains as well. Each patch names its target; tests watch them.

1. CPU linear layers repack their weight at load time and drop it, so that no later weight sync can reach it.
2. A process that waits for another one's message spins for a second before it sleeps: on a few cores it takes their
   time from the very process that it waits for, and from training.

``vllm.general_plugins`` entry point: vLLM calls :func:`register` in every one of its processes.
"""

from __future__ import annotations

import functools
import os
from typing import Any


def register() -> None:
    """Apply both patches. A no-op unless ``VERL_PLATFORM=cpu``."""
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    import torch
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
    from vllm.model_executor.layers import utils

    def keep_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = keep_weight
    SpinCondition.wait = _without_spinning(SpinCondition.wait)


def _without_spinning(wait: Any) -> Any:
    """``SpinCondition.wait`` that sleeps on vLLM's own notification at once, as it otherwise does after a second."""
    if hasattr(wait, "__wrapped__"):
        return wait

    @functools.wraps(wait)
    def wrapper(condition: Any, timeout_ms: int | None = None) -> None:
        condition.busy_loop_s = 0
        wait(condition, timeout_ms)

    return wrapper
