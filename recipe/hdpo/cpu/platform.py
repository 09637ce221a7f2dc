"""A ``cpu`` platform for verl: PyTorch's CPU "device" behind verl's accelerator interface.

verl asks the platform for a device module with memory statistics and streams. A CPU has neither; the
statistics are answered from the process's own memory, and everything that orders asynchronous work is a no-op.
"""

from __future__ import annotations

import os
import types
from contextlib import contextmanager, nullcontext
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase


def _rss_bytes(*_: Any) -> int:
    return psutil.Process(os.getpid()).memory_info().rss


def _mem_get_info(*_: Any) -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _build_device_module() -> types.ModuleType:
    """``torch.cpu`` with the attributes of ``torch.cuda`` that verl 0.9.1 reads."""
    module: Any = types.ModuleType("recipe.hdpo.cpu.device_module")
    for name in dir(torch.cpu):
        if not name.startswith("__"):
            setattr(module, name, getattr(torch.cpu, name))
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(module, name, _rss_bytes)
    for name in (
        "empty_cache",
        "ipc_collect",
        "set_device",
        "synchronize",
        "set_per_process_memory_fraction",
    ):
        setattr(module, name, _nothing)
    module.mem_get_info = _mem_get_info
    module.is_available = lambda: True
    module.current_device = lambda: "cpu"
    module.device_count = lambda: 1
    module.get_device_name = lambda *_: "cpu"
    module.get_rng_state = lambda *_: torch.get_rng_state()
    module.set_rng_state = lambda state, *_: torch.set_rng_state(state)
    module.manual_seed = torch.manual_seed
    module.manual_seed_all = torch.manual_seed
    return module


_DEVICE_MODULE = _build_device_module()


class PlatformCPU(PlatformBase):
    """The host's processor as verl's device. Chosen by ``VERL_PLATFORM=cpu``, never detected automatically."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return _DEVICE_MODULE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        # Automatic detection would take over machines whose accelerator verl fails to see.
        return False

    def current_device(self) -> str:  # type: ignore[override]
        # verl passes this to ``tensor.to``; index 0 would mean the first accelerator.
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str):
        with nullcontext():
            yield

    def profiler_start(self) -> None:
        return None

    def profiler_stop(self) -> None:
        return None

    def ray_resource_name(self) -> str:
        # Ray schedules verl's workers by this resource; the CPU configs declare it (ray_init.num_gpus).
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        # False makes verl send weights to the rollout engine through shared memory.
        return False

    def cudart(self) -> Any:
        return None
