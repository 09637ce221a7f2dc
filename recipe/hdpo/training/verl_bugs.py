"""Bugs of verl 0.9.1 that the recipe works around, each in one place and with its place in verl.

1. ``verl/trainer/ppo/v1/trainer_separate_async.py:181``: with ``actor_rollout_ref.hybrid_engine=false`` a line is
   logged with ``flush=True``, which ``logging`` does not know, and the start ends in a TypeError.
2. ``verl/utils/fsdp_utils.py:1180`` (and its like for FSDP1): weights are saved by ``.cpu()``, which is no copy where
   they are on the host already (``param_offload``, or a CPU). Training goes on in what was saved, so that older weights
   that are put into place are the newest ones, without a word.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from types import ModuleType
from typing import Any

import torch
from torch.utils._pytree import tree_map_only


class FlushingLogger(logging.LoggerAdapter):
    """A logger that takes ``print``'s argument, which changes nothing: handlers flush every line."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {name: value for name, value in kwargs.items() if name != "flush"}


def accept_flush(module: ModuleType) -> None:
    """Give a module of verl's a logger that does not fall over bug 1."""
    module.logger = FlushingLogger(module.logger, {})  # type: ignore[attr-defined]


def copy_of_weights(saved: Any, module: torch.nn.Module) -> Any:
    """What verl saved of a model's weights, as tensors of their own where they are the model's (bug 2)."""
    on_the_host = any(parameter.device.type == "cpu" for parameter in module.parameters())
    return tree_map_only(torch.Tensor, torch.clone, saved) if on_the_host else saved
