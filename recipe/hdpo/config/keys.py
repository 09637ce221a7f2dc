"""Where verl's config holds what the recipe's rules look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.config import HDPOConfig

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
MODEL, REF = "actor_rollout_ref.model", "actor_rollout_ref.ref"

# What the rules compute with. Another type (text from an environment variable, a word) would make them fail.
INTEGERS = (
    "data.max_prompt_length",
    "data.max_response_length",
    f"{ROLLOUT}.n",
    f"{ROLLOUT}.max_model_len",
    f"{ROLLOUT}.log_prob_max_token_len_per_gpu",
    f"{REF}.log_prob_max_token_len_per_gpu",
    f"{ACTOR}.ppo_max_token_len_per_gpu",
    f"{ACTOR}.ulysses_sequence_parallel_size",
    f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size",
    f"{REF}.ulysses_sequence_parallel_size",
    f"{REF}.fsdp_config.ulysses_sequence_parallel_size",
    f"{MODEL}.lora_rank",
    f"{MODEL}.lora.rank",
)
# Of these, what has no default in verl's config that null could stand for.
NEVER_NULL = INTEGERS[:3]

# Takes the composed config and the recipe's knobs; returns a message, or None where the config is fine.
Rule = Callable[[DictConfig, HDPOConfig], str | None]


# Keys that the rule at hand has looked at, for the message where it fails.
keys_read: list[str] = []


def select(config: DictConfig, key: str, default: Any = None) -> Any:
    """The value at a dotted key; the default where it is missing or null."""
    keys_read.append(key)
    value = OmegaConf.select(config, key)
    return default if value is None else value


def uses_lora(config: DictConfig) -> bool:
    """Whether verl trains an adapter: the model without it then serves as the reference model."""
    ranks = [select(config, f"{MODEL}.{key}", 0) for key in ("lora_rank", "lora.rank")]
    return max(ranks) > 0 or bool(select(config, f"{MODEL}.lora_adapter_path"))
