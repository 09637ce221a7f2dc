"""Where verl's config holds what the recipe's rules look at."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
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


def model_config(config: DictConfig) -> dict[str, Any] | None:
    """The model's ``config.json``, where it is a folder or in the hub's cache on this machine; None elsewhere.

    None too where it cannot be read, which is a refusal of its own (:func:`broken_model_config`).
    """
    file = _config_file(select(config, config_path_key(config)))
    try:
        found = None if file is None else json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def config_path_key(config: DictConfig) -> str:
    """Where verl's config says which folder or hub model ``config.json`` is of."""
    key = f"{MODEL}.hf_config_path"
    return f"{MODEL}.path" if select(config, key) is None else key


def broken_model_config(config: DictConfig) -> str | None:
    """What to say of a ``config.json`` that cannot be read; None for one that can, or none at all."""
    key = config_path_key(config)
    file = _config_file(select(config, key))
    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
    else:
        if isinstance(found, dict):
            return None
        why = f"it holds a {type(found).__name__}, not an object"
    return f"{key}: {file} cannot be read ({why}): copy the model's folder anew"


def _config_file(path: Any) -> Path | None:
    if not isinstance(path, str) or not path:
        return None
    if (file := Path(path).expanduser() / "config.json").is_file():
        return file
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(path, "config.json")
    except HFValidationError:  # a path, and nothing there
        return None
    return Path(cached) if isinstance(cached, str) else None


def model_value(config: DictConfig, name: str) -> Any:
    """A value of ``config.json`` with what ``model.override_config`` changes in it, of the text part where the model
    has several; None where it is not known."""
    parts = [model_config(config) or {}]
    parts.append(parts[0].get("text_config") or {})
    override = f"{MODEL}.override_config"
    changed = f"{override}.model_config" if select(config, f"{override}.model_config") is not None else override
    for node, part in zip((changed, f"{changed}.text_config"), parts, strict=True):
        if (value := select(config, f"{node}.{name}", part.get(name))) is not None:
            return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return None


def model_positions(config: DictConfig) -> int | None:
    """The longest sequence of the model, as verl's servers read it; None where it is not known."""
    found = model_value(config, "max_position_embeddings")
    return found if type(found) is int else None


def sequence_parallel_key(config: DictConfig, model: str) -> str:
    """Where verl reads how many ranks share each sequence of a model, ACTOR or REF: an older key wins above 1."""
    older = f"{model}.ulysses_sequence_parallel_size"
    return older if select(config, older, 1) > 1 else f"{model}.fsdp_config.ulysses_sequence_parallel_size"


def sequence_parallel_size(config: DictConfig, model: str) -> int:
    """How many ranks share each sequence of a model, ACTOR or REF."""
    return select(config, sequence_parallel_key(config, model), 1)


def is_async(config: DictConfig) -> bool:
    """Whether the trainer lets rollouts go on over its updates, by its name: verl's or the recipe's."""
    return str(select(config, "trainer.v1.trainer_mode")).endswith("async")


def is_separate(config: DictConfig) -> bool:
    """Whether rollouts have accelerators of their own, by the trainer's name."""
    return str(select(config, "trainer.v1.trainer_mode")).endswith("separate_async")


def max_staleness(config: DictConfig, wanted: int | None) -> int | None:
    """How many versions of the weights may lie between a kept trajectory and its use; None for any number.

    Args:
        wanted: ``hdpo.max_staleness``; None for as many as verl allows rollouts.
    """
    versions = select(config, "trainer.v1.sampler.max_off_policy_threshold")
    return wanted if wanted is not None or versions is None else versions - 1


def uses_lora(config: DictConfig) -> bool:
    """Whether verl trains an adapter: the model without it then serves as the reference model."""
    ranks = [select(config, f"{MODEL}.{key}", 0) for key in ("lora_rank", "lora.rank")]
    return max(ranks) > 0 or bool(select(config, f"{MODEL}.lora_adapter_path"))


def is_derived(path: str, base: str) -> bool:
    """Whether the class at a dotted path is, or derives from, the one at another; imports the first one's module.

    Raises:
        ValueError: there is no such class.
    """
    if path == base:
        return True
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
        return any(f"{parent.__module__}.{parent.__qualname__}" == base for parent in found.__mro__)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} cannot be imported as a class ({type(error).__name__}: {error})") from error
