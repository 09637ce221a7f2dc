"""The recipe's config as Hydra composes it, for the tests that start from one."""

from __future__ import annotations

from hydra import compose, initialize_config_module
from omegaconf import DictConfig

# What a user must say: where the model is, and how much a privileged prompt and a response may take together.
NEEDED = ("actor_rollout_ref.model.path=/nowhere", "actor_rollout_ref.rollout.max_model_len=2048")


def composed(*overrides: str) -> DictConfig:
    """The recipe's config, with :data:`NEEDED` and further overrides."""
    with initialize_config_module("recipe.hdpo.config", version_base=None):
        return compose("hdpo_trainer", overrides=[*NEEDED, *overrides])
