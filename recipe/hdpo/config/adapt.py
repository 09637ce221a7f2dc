"""The config that runs: what a verl command leaves open, or says for another estimator, in HDPO's terms.

Every change is said in one line. Applied to a copy before the rules look (:mod:`recipe.hdpo.config.checks`), and to the
config itself in the driver and in the trainer; a second time it changes nothing.
"""

from __future__ import annotations

import logging

from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import select
from recipe.hdpo.config.lengths import CONTEXT, derived_context, unused_positions

logger = logging.getLogger(__name__)

ESTIMATOR = "algorithm.adv_estimator"


def adapt(config: DictConfig, hdpo: HDPOConfig) -> list[str]:
    """Set the estimator and the engine's context length in ``config``.

    Returns:
        what runs and why, one line each: which estimator always, the length where it was derived.
    """
    lines = [_estimator(config, hdpo)]
    derived = derived_context(config, hdpo)
    if derived is not None:
        context, line = derived
        _set(config, CONTEXT, context)
        lines.append(line)
    if hdpo.privileged.n > 0 and not select(config, "data.filter_overlong_prompts", False):
        lines.append(
            "data.filter_overlong_prompts=false: verl cuts the beginning of longer prompts off, and such prompts are "
            "no cliffs (hdpo/overlong_prompts counts them)"
        )
    return lines


def fit_positions(config: DictConfig, hdpo: HDPOConfig, positions: int) -> None:
    """Lower a context length that was derived before the model was known, to its number of positions.

    Raises:
        ValueError: what is left has no room for a privileged prompt.
    """
    context = select(config, CONTEXT)
    if hdpo.privileged.n == 0 or context is None or context <= positions:
        return
    room = positions - unused_positions(config) - config.data.max_response_length
    needed = hdpo.privileged.max_prompt_length or config.data.max_prompt_length + hdpo.privileged.shows
    if room < needed:
        raise ValueError(
            f"the model's {positions} positions leave {room} tokens beside data.max_response_length="
            f"{config.data.max_response_length}, and a privileged prompt needs {needed} or more: lower "
            "data.max_response_length or data.max_prompt_length"
        )
    _set(config, CONTEXT, positions)
    logger.warning(
        f"{CONTEXT}={context} becomes the model's {positions} positions: privileged prompts up to {room} tokens"
    )


def _estimator(config: DictConfig, hdpo: HDPOConfig) -> str:
    asked = select(config, ESTIMATOR)
    if hdpo.adv_estimator is None:
        return f"advantages are verl's {ESTIMATOR}={asked}, not HDPO's leave-one-out ones (hdpo.adv_estimator=null)"
    if asked == hdpo.adv_estimator:
        return f"advantages are HDPO's leave-one-out ones ({ESTIMATOR}={asked})"
    _set(config, ESTIMATOR, hdpo.adv_estimator)
    return (
        f"advantages are HDPO's leave-one-out ones: {ESTIMATOR}={asked} gives way to hdpo.adv_estimator="
        f"{hdpo.adv_estimator}; to run it with the distillation term, set hdpo.adv_estimator=null"
    )


def _set(config: DictConfig, key: str, value: object) -> None:
    with open_dict(config):
        OmegaConf.update(config, key, value)
