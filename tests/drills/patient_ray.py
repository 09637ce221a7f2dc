"""Loaded by verl into the drills' processes: Ray gives its node 30 s to start, and a busy machine needs more."""

from __future__ import annotations

import time
from typing import Any

from ray._private import services

WITHIN = 180.0
_get_node = services.get_node


def _patient(*args: Any, **kwargs: Any) -> Any:
    began = time.monotonic()
    while True:
        try:
            return _get_node(*args, **kwargs)
        except RuntimeError:
            if time.monotonic() - began > WITHIN:
                raise
            time.sleep(0.5)


services.get_node = _patient
