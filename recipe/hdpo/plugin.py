"""The only module whose import registers anything.

verl loads it in every process through the ``verl.plugins`` entry point, in the middle of ``import verl``. So it
imports nothing heavy: each registration waits for the verl module that it belongs to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

TRAINER = "hdpo"
ADVANTAGE_ESTIMATOR = "hdpo"


def _register_core_algos(core_algos: ModuleType) -> None:
    from recipe.hdpo.algorithm.advantage import compute_hdpo_advantage
    from recipe.hdpo.training.policy_loss import POLICY_LOSS, refuse_policy_loss

    core_algos.register_adv_est(ADVANTAGE_ESTIMATOR)(compute_hdpo_advantage)
    core_algos.register_policy_loss(POLICY_LOSS)(refuse_policy_loss)


def _import_trainer(v1: ModuleType) -> None:
    # The hooks below register them, also when one of them is what imported verl's v1.
    import recipe.hdpo.training.trainer_async
    import recipe.hdpo.training.trainer_sync  # noqa: F401


def _register_trainer(trainer: ModuleType) -> None:
    from verl.trainer.ppo.v1.trainer_base import register_trainer

    register_trainer(TRAINER)(trainer.HDPOTrainerSync)


def _register_async_trainers(trainer: ModuleType) -> None:
    from verl.trainer.ppo.v1.trainer_base import register_trainer

    register_trainer(f"{TRAINER}_colocate_async")(trainer.HDPOTrainerColocateAsync)
    register_trainer(f"{TRAINER}_separate_async")(trainer.HDPOTrainerSeparateAsync)


def _register_search_path(_: ModuleType) -> None:
    """Hydra looks for plug-ins in folders named hydra_plugins. An editable installation has none, nor has a copy of
    this folder among verl's recipes. A second time changes nothing."""
    from hydra.core.plugins import Plugins

    from recipe.hdpo.search_path import HDPOSearchPath

    Plugins.instance().register(HDPOSearchPath)


def _refuse_silent_grpo(verl_config: ModuleType) -> None:
    """verl's own check of a config is what every launch calls before Ray, HDPO's callback or not."""

    def checked(validate: Callable[..., None], _: Any, args: tuple, kwargs: dict) -> None:
        from recipe.hdpo.config.switched_on import silent_grpo

        message = silent_grpo(kwargs["config"] if "config" in kwargs else args[0])
        if message is not None:
            sys.exit(message)
        validate(*args, **kwargs)

    wrapt.wrap_function_wrapper(verl_config, "validate_config", checked)


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
    # main_ppo imports the first before Hydra composes, and the second before it takes the check out of it.
    wrapt.register_post_import_hook(_register_search_path, "verl.trainer.constants_ppo")
    wrapt.register_post_import_hook(_refuse_silent_grpo, "verl.utils.config")
    wrapt.register_post_import_hook(_register_core_algos, "verl.trainer.ppo.core_algos")
    wrapt.register_post_import_hook(_import_trainer, "verl.trainer.ppo.v1")
    wrapt.register_post_import_hook(_register_trainer, "recipe.hdpo.training.trainer_sync")
    wrapt.register_post_import_hook(_register_async_trainers, "recipe.hdpo.training.trainer_async")


register()
