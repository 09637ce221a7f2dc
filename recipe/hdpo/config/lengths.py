"""How long a privileged prompt may be, and what follows for the engine where the config leaves its context open.

Lengths that cannot work together are refused in ``length_rules.py``.
"""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import ACTOR, REF, ROLLOUT, model_positions, select, sequence_parallel_size, uses_lora

CONTEXT = f"{ROLLOUT}.max_model_len"


def unused_positions(config: DictConfig) -> int:
    """Positions of the context that hold neither prompt nor response: verl's SGLang server leaves one free."""
    return int(select(config, f"{ROLLOUT}.name") == "sglang")


def usable_context(config: DictConfig) -> int | None:
    """Tokens of a prompt and its response together; None without a context length."""
    context = select(config, CONTEXT)
    return None if context is None else context - unused_positions(config)


def max_privileged_prompt_length(config: DictConfig, hdpo: HDPOConfig) -> int | None:
    """Longest privileged prompt in tokens; None without a context length (:func:`wanted_context` gives one)."""
    if hdpo.privileged.max_prompt_length is not None:
        return hdpo.privileged.max_prompt_length
    context = usable_context(config)
    return None if context is None else context - config.data.max_response_length


def wanted_context(config: DictConfig, hdpo: HDPOConfig) -> int:
    """The context length that a privileged prompt and its response need, where nothing limits them.

    A worked solution may be as long as a response: problem, solution and response together take
    ``data.max_prompt_length`` + 2 ``data.max_response_length``. So may a failed attempt, and its feedback. A prompt
    that shows none is as long as any.
    """
    prompt, response = config.data.max_prompt_length, config.data.max_response_length
    room = response + unused_positions(config)
    if hdpo.privileged.max_prompt_length is not None:
        return hdpo.privileged.max_prompt_length + room
    return prompt + _texts(hdpo) * response + room


def _texts(hdpo: HDPOConfig) -> int:
    """How many texts as long as a response a privileged prompt may show."""
    if hdpo.privileged.of_feedback:
        return 2
    return int(hdpo.privileged.shows)


def derived_context(config: DictConfig, hdpo: HDPOConfig) -> tuple[int, str] | None:
    """Where ``rollout.max_model_len`` is null, its value and how it was chosen; None where nothing is to be chosen."""
    if hdpo.privileged.n == 0 or select(config, CONTEXT) is not None:
        return None
    wanted = wanted_context(config, hdpo)
    limits = training_budgets(config, hdpo)
    positions = model_positions(config)
    if positions is not None:
        limits[f"the model's {positions} positions"] = positions
    tight = min(limits, key=lambda name: limits[name], default=None)
    context = wanted if tight is None else min(wanted, limits[tight])
    room = context - unused_positions(config) - config.data.max_response_length
    texts = "a solution" if _texts(hdpo) == 1 else "an attempt and its feedback, each"
    how = f"a prompt and {texts} as long as a response" if context == wanted else f"what {tight} leave"
    if hdpo.privileged.max_prompt_length is not None:
        how = "hdpo.privileged.max_prompt_length"
    elif not hdpo.privileged.shows:
        how = "as long as any prompt"
    return context, f"privileged prompts have up to {room} tokens ({how}), and so {CONTEXT}=null becomes {context}"


def training_budgets(config: DictConfig, hdpo: HDPOConfig) -> dict[str, int]:
    """Token budgets, by what to call them, that a privileged prompt and its response must fit into.

    These are budgets of verl's own passes, where the actor trains on privileged prompts (``use=replace``), each times
    the number of ranks that share a sequence, as verl reads them. The teacher pass is the recipe's: it makes room for a
    longer row by itself.
    """
    if not select(config, f"{ACTOR}.use_dynamic_bsz", False):
        return {}
    if hdpo.privileged.n == 0 or hdpo.privileged.use != "replace" or not hdpo.privileged.shows:
        return {}
    kl = select(config, f"{ACTOR}.use_kl_loss", False) or select(config, "algorithm.use_kl_in_reward", False)
    # By the model that reads.
    keys = {f"{ACTOR}.ppo_max_token_len_per_gpu": ACTOR, f"{ROLLOUT}.log_prob_max_token_len_per_gpu": ACTOR}
    if kl and not uses_lora(config):
        keys[f"{REF}.log_prob_max_token_len_per_gpu"] = REF
    found = {}
    for key, model in keys.items():
        if (budget := select(config, key)) is not None:
            size = sequence_parallel_size(config, model)
            found[f"{key}={budget}" + (f" x {size} (sequence parallel)" if size > 1 else "")] = budget * size
    return found
