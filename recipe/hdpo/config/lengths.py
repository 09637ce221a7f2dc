"""How long a privileged prompt may be. Lengths that cannot work together are refused in ``model_rules.py``."""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import ROLLOUT, select


def max_privileged_prompt_length(config: DictConfig, hdpo: HDPOConfig) -> int | None:
    """Longest privileged prompt in tokens; None without a context length (then ``no_limit`` refuses)."""
    if hdpo.privileged.max_prompt_length is not None:
        return hdpo.privileged.max_prompt_length
    context = select(config, f"{ROLLOUT}.max_model_len")
    return None if context is None else context - config.data.max_response_length
