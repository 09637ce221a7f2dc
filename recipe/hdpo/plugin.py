"""The only module whose import registers anything.

verl loads it in every process through the ``verl.plugins`` entry point, in the middle of ``import verl``. So it
imports nothing heavy: each registration waits for the verl module that it belongs to.
"""

from __future__ import annotations

import os
from types import ModuleType

import wrapt

TRAINER = "hdpo"
ADVANTAGE_ESTIMATOR = "hdpo"


def _register_core_algos(core_algos: ModuleType) -> None:
    from recipe.hdpo.algorithm.advantage import compute_hdpo_advantage
    from recipe.hdpo.training.policy_loss import POLICY_LOSS, refuse_policy_loss

    core_algos.register_adv_est(ADVANTAGE_ESTIMATOR)(compute_hdpo_advantage)
    core_algos.register_policy_loss(POLICY_LOSS)(refuse_policy_loss)


def _import_trainer(v1: ModuleType) -> None:
    # The hook below registers it, also when it is what imported verl's v1.
    import recipe.hdpo.training.trainer  # noqa: F401


def _register_trainer(trainer: ModuleType) -> None:
    from verl.trainer.ppo.v1.trainer_base import register_trainer

    register_trainer(TRAINER)(trainer.HDPOTrainerSync)


def keep_warnings_audible() -> None:
    """vLLM's server imports a package that sets the root logger and its handlers to this level, and to ERROR without
    it. Every warning, verl's and ours, would be lost in the trainer and in all workers."""
    os.environ.setdefault("SAGEMAKER_CONTAINER_LOG_LEVEL", "WARNING")


def register() -> None:
    """Register everything once per process."""
    keep_warnings_audible()
    if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        from recipe.hdpo.cpu import verl_patches

        verl_patches.install()
    wrapt.register_post_import_hook(_register_core_algos, "verl.trainer.ppo.core_algos")
    wrapt.register_post_import_hook(_import_trainer, "verl.trainer.ppo.v1")
    wrapt.register_post_import_hook(_register_trainer, "recipe.hdpo.training.trainer")


register()
