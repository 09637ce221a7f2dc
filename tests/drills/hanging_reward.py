"""A reward function whose first call never returns; all others grade."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from recipe.hdpo import reward

_calls = itertools.count()


def compute_score(*args: Any, **kwargs: Any) -> Any:
    if next(_calls) == 0:
        threading.Event().wait()
    return reward.compute_score(*args, **kwargs)
