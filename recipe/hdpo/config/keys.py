"""Where verl's config holds what the recipe's rules look at."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"


def select(config: DictConfig, key: str, default: Any = None) -> Any:
    """The value at a dotted key; the default where it is missing or null."""
    value = OmegaConf.select(config, key)
    return default if value is None else value
