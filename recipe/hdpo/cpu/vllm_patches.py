"""vLLM's CPU linear layers repack their weight at load time and drop it, so that no later weight sync can reach it.

``vllm.general_plugins`` entry point: vLLM calls :func:`register` in every one of its processes.
"""

from __future__ import annotations

import os


def register() -> None:
    """Keep the weights of vLLM's CPU linear layers in place. A no-op unless ``VERL_PLATFORM=cpu``."""
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    import torch
    from vllm.model_executor.layers import utils

    def keep_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = keep_weight
