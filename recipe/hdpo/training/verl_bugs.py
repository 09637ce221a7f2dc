"""Bugs of verl 0.9.1 that the recipe works around, each in one place and with its place in verl.

1. ``verl/trainer/ppo/v1/trainer_separate_async.py:181``: with ``actor_rollout_ref.hybrid_engine=false`` a line is
   logged with ``flush=True``, which ``logging`` does not know, and the start ends in a TypeError.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from types import ModuleType
from typing import Any


class FlushingLogger(logging.LoggerAdapter):
    """A logger that takes ``print``'s argument, which changes nothing: handlers flush every line."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {name: value for name, value in kwargs.items() if name != "flush"}


def accept_flush(module: ModuleType) -> None:
    """Give a module of verl's a logger that does not fall over bug 1."""
    module.logger = FlushingLogger(module.logger, {})  # type: ignore[attr-defined]
