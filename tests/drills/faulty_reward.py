"""Reward functions with a fault each; all other calls grade."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from recipe.hdpo import reward

_calls = itertools.count()


def hang(*args: Any, **kwargs: Any) -> Any:
    """The first call never returns."""
    if next(_calls) == 0:
        threading.Event().wait()
    return reward.compute_score(*args, **kwargs)


def raise_(*args: Any, **kwargs: Any) -> Any:
    """Every fourth call raises."""
    if next(_calls) % 4 == 0:
        raise RuntimeError("made to fail")
    return reward.compute_score(*args, **kwargs)


def not_a_number(*args: Any, **kwargs: Any) -> Any:
    """Every fourth reward is NaN."""
    graded = reward.compute_score(*args, **kwargs)
    return {**graded, "score": float("nan")} if next(_calls) % 4 == 0 else graded
