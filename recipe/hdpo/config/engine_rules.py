"""Rules on the engines of the rollouts."""

from __future__ import annotations

import math

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import ROLLOUT, is_separate, select

PARTS = [f"{ROLLOUT}.{part}_parallel_size" for part in ("tensor_model", "data", "pipeline_model")]
BACKEND = f"{ROLLOUT}.engine_kwargs.vllm.distributed_executor_backend"
# Accelerators of the training, and those that a trainer with rollouts apart has beside them.
RANKS = ("trainer.nnodes", "trainer.n_gpus_per_node")
APART = (f"{ROLLOUT}.nnodes", f"{ROLLOUT}.n_gpus_per_node")


def engines_of_odd_size(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """Each engine takes the ranks of a group of its own. verl finds out after every worker has loaded its model."""
    parts = {key: select(config, key, 1) for key in PARTS}
    size = math.prod(parts.values())
    for keys in _pools(config):
        ranks = {key: select(config, key, 1) for key in keys}
        if (all_ranks := math.prod(ranks.values())) % size != 0:
            said = " x ".join(f"{key}={n}" for key, n in parts.items() if n != 1)
            there = " x ".join(f"{key}={n}" for key, n in ranks.items())
            return (
                f"{said}: an engine of {size} accelerators does not divide the {all_ranks} that there are ({there}): "
                f"set {PARTS[0]}=1 (verl's own default is 2), or another divisor"
            )
    return None


def _pools(config: DictConfig) -> list[tuple[str, str]]:
    """The keys of how many accelerators there are, wherever engines run."""
    if not is_separate(config):
        return [RANKS]
    return [RANKS, APART] if select(config, "actor_rollout_ref.hybrid_engine", True) else [APART]


def process_of_several_ranks(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """vLLM's executor without processes of its own, which ``+device=cpu`` sets, holds one rank."""
    parts = {key: select(config, key, 1) for key in PARTS}
    if select(config, BACKEND, None) != "uni" or parts[PARTS[0]] * parts[PARTS[2]] == 1:
        return None
    said = " x ".join(f"{key}={n}" for key, n in parts.items() if n != 1)
    return f"{said}: an engine of several ranks does not run in one process ({BACKEND}=uni): set {BACKEND}=mp"
