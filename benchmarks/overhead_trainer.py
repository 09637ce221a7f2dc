"""A training whose steps are of three kinds in turn, on the same prompts: GRPO's, and HDPO's with either schedule.

Loaded through VERL_USE_EXTERNAL_MODULES by benchmarks/overhead.py; registered as ``hdpo_overhead``. The run's schedule
is ``next_step``, so that each step's cliffs are remembered. They are re-issued where the next step is of that kind.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import wrapt

KINDS = ("same_step", "next_step", "GRPO")


def kind(step: int) -> str:
    """What step ``step`` is; a ``next_step`` comes after a ``same_step``, whose cliffs it re-issues."""
    return KINDS[(step - 1) % len(KINDS)]


def _register(trainer: ModuleType) -> None:
    from verl.trainer.ppo.v1.trainer_base import register_trainer

    class OverheadTrainer(trainer.HDPOTrainerSync):  # type: ignore[name-defined]  # known once verl is imported
        """Re-issues waiting cliffs in steps of that kind alone, and leaves the distillation term out of GRPO's."""

        def prepare_step(self) -> dict:
            if kind(self.global_steps) != "next_step":
                self.waiting.rows = None
            return super().prepare_step()

        def _update_actor(self, batch: Any, metrics: dict) -> Any:
            both = self.hdpo  # type: ignore[has-type]
            if kind(self.global_steps) == "GRPO":
                self.hdpo = replace(both, distillation_loss_coef=0.0)
            try:
                return super()._update_actor(batch, metrics)
            finally:
                self.hdpo = both

    register_trainer("hdpo_overhead")(OverheadTrainer)


wrapt.register_post_import_hook(_register, "recipe.hdpo.training.trainer_sync")
