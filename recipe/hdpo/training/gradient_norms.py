"""How strongly each term pulls: the norms of the two terms' gradients on one mini-batch.

    ratio = || lambda * grad L_JSD || / || grad L_GRPO ||

Two extra backward passes, so it is measured every ``hdpo.gradient_ratio_interval`` steps, on the first mini-batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from tensordict import TensorDict
from torch.distributed.tensor import DTensor

from recipe.hdpo.training.teacher_pass import assign_engine_settings


def gradient_norm(module: Any) -> float:
    """L2 norm of the gradients of all parameters over all shards."""
    if hasattr(module, "clip_grad_norm_"):  # FSDP1 knows how to sum over its flat shards
        return float(module.clip_grad_norm_(float("inf")))
    norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def term_gradient_norms(worker: Any, batch: TensorDict) -> dict[str, float]:
    """Gradient norms of both terms; the weights, the optimizer and the gradients are left as they were (zero).

    Args:
        worker: the recipe's actor.
        batch: a mini-batch with both kinds of rows, as ``train_batch`` gets it.
    """
    engine, norms = worker.engine, {}
    for term in ("grpo", "distillation"):
        data = batch.copy()
        assign_engine_settings(worker, data, training=True)
        with engine.train_mode(disable_auto_offload=True):
            engine.optimizer_zero_grad()
            engine.forward_backward_batch(data, replace(worker.loss_fn, terms=term), forward_only=False)
            norms[f"hdpo/grad_norm_{term}"] = gradient_norm(engine.module)
            engine.optimizer_zero_grad()
    if norms["hdpo/grad_norm_grpo"] > 0:
        norms["hdpo/grad_norm_ratio"] = norms["hdpo/grad_norm_distillation"] / norms["hdpo/grad_norm_grpo"]
    return norms
