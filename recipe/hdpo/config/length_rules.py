"""Rules (as in ``rules.py``) on lengths: of prompts, responses, positions and micro-batches."""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import Rule, model_positions, select
from recipe.hdpo.config.lengths import (
    CONTEXT,
    max_privileged_prompt_length,
    training_budgets,
    unused_positions,
    wanted_context,
)


def no_room_for_the_solution(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    longest, plain = max_privileged_prompt_length(config, hdpo), config.data.max_prompt_length
    if hdpo.privileged.n == 0 or longest is None or longest > plain or not hdpo.privileged.shows:
        return None
    context, response = select(config, CONTEXT), config.data.max_response_length
    limit, way_out = f"{CONTEXT}={context}", f"raise it (null: {wanted_context(config, hdpo)}), or"
    if hdpo.privileged.max_prompt_length is not None:
        way_out = "raise hdpo.privileged.max_prompt_length, or"
    elif context in training_budgets(config, hdpo).values():
        way_out = "raise the token budgets (*_max_token_len_per_gpu) to more than that, or"
    elif context == model_positions(config):
        limit, way_out = f"the model's {context} positions", ""
    return (
        f"privileged prompts may have {longest} tokens, no more than plain ones (data.max_prompt_length={plain}), but "
        f"they hold the problem and its solution; of {limit}, data.max_response_length={response} go to the response: "
        f"{way_out} lower data.max_response_length or data.max_prompt_length".replace(":  ", ": ")
    )


def no_room_for_the_response(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    wanted, context = hdpo.privileged.max_prompt_length, select(config, CONTEXT)
    unused = unused_positions(config)
    room = None if context is None else context - unused - config.data.max_response_length
    if hdpo.privileged.n == 0 or wanted is None or room is None or wanted <= room:
        return None
    free = f" and {unused} position that the engine leaves free" if unused else ""
    return (
        f"hdpo.privileged.max_prompt_length={wanted} leaves no full response: {CONTEXT}={context} minus "
        f"data.max_response_length={config.data.max_response_length}{free} is {room}: lower the first or raise the "
        "second"
    )


def context_above_positions(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    context, positions = select(config, CONTEXT), model_positions(config)
    if context is None or positions is None or context <= positions:
        return None
    return f"{CONTEXT}={context} is more than the model's {positions} positions: lower it, or set it to null"


def micro_batch_too_small(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """With ``use=replace`` the actor trains on privileged prompt and response in one row."""
    longest = max_privileged_prompt_length(config, hdpo)
    if longest is None:
        return None
    need = longest + config.data.max_response_length
    small = [said for said, budget in training_budgets(config, hdpo).items() if budget < need]
    if not small:
        return None
    return (
        f"{', '.join(small)} is less than the longest privileged prompt and response together, {need} tokens: raise "
        "it, or lower hdpo.privileged.max_prompt_length"
    )


LENGTH_RULES: tuple[Rule, ...] = (
    context_above_positions,
    no_room_for_the_solution,
    no_room_for_the_response,
    micro_batch_too_small,
)
