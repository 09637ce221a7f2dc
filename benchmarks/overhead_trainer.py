"""A trainer that alternates: HDPO's update in even steps, GRPO's in odd ones, on the same kind of batches.

Loaded through VERL_USE_EXTERNAL_MODULES by benchmarks/overhead.py; registered as ``hdpo_overhead``.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import wrapt


def _register(trainer: ModuleType) -> None:
    from verl.trainer.ppo.v1.trainer_base import register_trainer

    class OverheadTrainer(trainer.HDPOTrainerSync):  # type: ignore[name-defined]  # known once verl is imported
        """Leaves the distillation term out of every odd step."""

        def _update_actor(self, batch, metrics):
            both = self.hdpo  # type: ignore[has-type]
            if self.global_steps % 2:
                self.hdpo = replace(both, distillation_loss_coef=0.0)
            try:
                return super()._update_actor(batch, metrics)
            finally:
                self.hdpo = both

    register_trainer("hdpo_overhead")(OverheadTrainer)


wrapt.register_post_import_hook(_register, "recipe.hdpo.training.trainer_sync")
