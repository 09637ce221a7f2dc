"""Ranks of a gloo group as threads of this process: collectives for pure functions, without a process more."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = timedelta(seconds=60)


def _group(store: dist.Store, rank: int, size: int) -> dist.ProcessGroup:
    group = dist.ProcessGroup(store, rank, size)
    gloo = dist.ProcessGroup.BackendType.GLOO
    group._register_backend(torch.device("cpu"), gloo, dist.ProcessGroupGloo(store, rank, size, TIMEOUT))
    group._set_default_backend(gloo)
    return group


def on_ranks(size: int, function: Callable[[int, dist.ProcessGroup], Any]) -> list[Any]:
    """``function(rank, group)`` on every rank of a group; their answers in the order of ranks."""
    store = dist.HashStore()
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: function(rank, _group(store, rank, size)), range(size)))
