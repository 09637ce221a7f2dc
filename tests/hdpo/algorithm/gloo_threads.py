"""Ranks of a gloo group as threads of this process: collectives for pure functions, without a process more."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = timedelta(seconds=60)
TRIES = 3


def _group(store: dist.Store, rank: int, size: int) -> dist.ProcessGroup:
    group = dist.ProcessGroup(store, rank, size)
    gloo = dist.ProcessGroup.BackendType.GLOO
    group._register_backend(torch.device("cpu"), gloo, dist.ProcessGroupGloo(store, rank, size, TIMEOUT))
    group._set_default_backend(gloo)
    return group


def on_ranks(size: int, function: Callable[[int, dist.ProcessGroup], Any]) -> list[Any]:
    """``function(rank, group)`` on every rank of a group; their answers in the order of ranks."""
    with ThreadPoolExecutor(size) as pool:
        groups = _groups(pool, size)
        return list(pool.map(lambda rank: function(rank, groups[rank]), range(size)))


def _groups(pool: ThreadPoolExecutor, size: int) -> list[dist.ProcessGroup]:
    """Gloo's handshake fails at times where groups are made one right after the other, on ports used before."""
    for left in reversed(range(TRIES)):
        store = dist.HashStore()
        try:
            return list(pool.map(lambda rank, store=store: _group(store, rank, size), range(size)))
        except RuntimeError:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")
