"""Where verl's config holds what the recipe's rules look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.config import HDPOConfig

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
MODEL, REF = "actor_rollout_ref.model", "actor_rollout_ref.ref"

# Takes the composed config and the recipe's knobs; returns a message, or None where the config is fine.
Rule = Callable[[DictConfig, HDPOConfig], str | None]


def select(config: DictConfig, key: str, default: Any = None) -> Any:
    """The value at a dotted key; the default where it is missing or null."""
    value = OmegaConf.select(config, key)
    return default if value is None else value


def uses_lora(config: DictConfig) -> bool:
    """Whether verl trains an adapter: the model without it then serves as the reference model."""
    ranks = [select(config, f"{MODEL}.{key}", 0) for key in ("lora_rank", "lora.rank")]
    return max(ranks) > 0 or bool(select(config, f"{MODEL}.lora_adapter_path"))
