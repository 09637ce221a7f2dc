"""A checkpoint engine of verl's without accelerators: weights go from training to rollouts through a file in memory.

For one machine, so that ``separate_async`` can be tried on CPUs. verl takes it by

    actor_rollout_ref.rollout.checkpoint_engine.backend=shared_memory
    actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module=recipe.hdpo.cpu.checkpoint_engine
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from verl.checkpoint_engine import CheckpointEngine, CheckpointEngineRegistry

# Seconds between two looks for the file, and those after which the sender is given up.
POLL, LIMIT = 0.05, 600.0


@CheckpointEngineRegistry.register("shared_memory")
class SharedMemoryEngine(CheckpointEngine):
    """Rank 0 of training writes all weights into one file of ``/dev/shm``; every rollout worker reads it.

    Args:
        bucket_size: not used: the file holds all weights.
        is_master: whether this process is rank 0 of training.
        folder: where the file lies.
    """

    def __init__(self, bucket_size: int, is_master: bool = False, folder: str = "/dev/shm") -> None:
        self.is_master, self.folder = is_master, folder
        self.path: Path | None = None

    def prepare(self) -> dict[str, Any]:
        """A new folder for this transfer, of which rank 0 tells the others."""
        return {"path": tempfile.mkdtemp(prefix="hdpo_weights_", dir=self.folder)} if self.is_master else {}

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Everyone gets the folder: the metadata of training come first, and rank 0's first of all."""
        path = metadata[0]["path"]
        return {"path": [path] * actor_wg_world_size}, {"path": [path] * rollout_world_size}

    def init_process_group(self, path: str) -> None:
        """Take the folder of this transfer."""
        self.path = Path(path)

    async def send_weights(
        self, weights: Iterable[tuple[str, torch.Tensor]], global_steps: int | None = None
    ) -> dict[str, float]:
        """Every rank goes through the weights, since each tensor is gathered from all; rank 0 writes them."""
        found = {}
        for name, tensor in weights:
            if self.is_master:
                found[name] = tensor.detach().to("cpu", copy=True).contiguous()
        if self.is_master:
            part = self._file.with_suffix(".part")
            save_file(found, part)
            part.rename(self._file)  # whole or not there
        return {}

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        """The weights, by name.

        Raises:
            TimeoutError: none arrived.
        """
        end = time.monotonic() + LIMIT
        while not self._file.exists():
            if time.monotonic() > end:
                raise TimeoutError(f"no weights in {self._file} after {LIMIT:.0f} s: did a training process end?")
            await asyncio.sleep(POLL)
        with safe_open(self._file, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                yield name, file.get_tensor(name)

    def finalize(self) -> None:
        """Remove the file once all have read it."""
        if self.is_master and self.path is not None:
            shutil.rmtree(self.path)
        self.path = None

    @property
    def _file(self) -> Path:
        assert self.path is not None, "verl calls init_process_group before a transfer"
        return self.path / "weights.safetensors"
