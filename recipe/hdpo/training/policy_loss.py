"""The policy loss ``hdpo`` of verl's registry, which always refuses.

HDPO's policy loss is verl's clipped term (``vanilla``), and the distillation term joins it in
:mod:`recipe.hdpo.training.loss`, where the logits are: no policy loss ever sees them. So the recipe's worker reads
``loss_mode=hdpo`` as ``vanilla``, and whoever else looks the name up would train without the distillation term.
"""

from __future__ import annotations

from typing import Any, NoReturn

from omegaconf import DictConfig

POLICY_LOSS = "hdpo"


def use_clipped_loss(actor: DictConfig) -> None:
    """Replace ``hdpo`` by verl's own clipped loss in an actor's config node, in place; other losses stay."""
    if actor.policy_loss.loss_mode == POLICY_LOSS:
        actor.policy_loss.loss_mode = "vanilla"


def refuse_policy_loss(*args: Any, **kwargs: Any) -> NoReturn:
    """What verl finds under the name ``hdpo`` outside the recipe's worker.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(
        f"actor.policy_loss.loss_mode={POLICY_LOSS} runs in HDPO's actor worker only, since the distillation "
        "term joins it there: set trainer.v1.trainer_mode=hdpo (and trainer.use_v1=true), or use loss_mode=vanilla, "
        "which is plain GRPO"
    )
