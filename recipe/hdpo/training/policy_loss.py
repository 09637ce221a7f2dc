"""The policy loss ``hdpo`` of verl's registry: L_GRPO, the clipped term.

The distillation term needs the logits, which a policy loss never sees; it joins in :mod:`recipe.hdpo.training.loss`,
inside the recipe's worker. So this loss alone is not HDPO, and outside that worker it refuses to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

_IN_HDPO_WORKER: ContextVar[bool] = ContextVar("in_hdpo_worker", default=False)


@contextmanager
def inside_hdpo_worker() -> Iterator[None]:
    """Marks the calls of the recipe's worker."""
    token = _IN_HDPO_WORKER.set(True)
    try:
        yield
    finally:
        _IN_HDPO_WORKER.reset(token)


def compute_policy_loss_hdpo(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, dict[str, Any]]:
    """verl's clipped policy loss (``vanilla``), same arguments and results.

    Raises:
        RuntimeError: it is called outside the recipe's worker.
    """
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla

    if not _IN_HDPO_WORKER.get():
        raise RuntimeError(
            "actor.policy_loss.loss_mode=hdpo runs in HDPO's actor worker only, since the distillation term joins it "
            "there: set trainer.v1.trainer_mode=hdpo (and trainer.use_v1=true), or loss_mode=vanilla for plain GRPO"
        )
    return compute_policy_loss_vanilla(*args, **kwargs)
