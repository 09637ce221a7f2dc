"""How long a privileged prompt may be; lengths that cannot work together are refused as in `rules.py`."""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import ACTOR, ROLLOUT, select


def max_privileged_prompt_length(config: DictConfig, hdpo: HDPOConfig) -> int | None:
    """Longest privileged prompt in tokens; None where nothing limits it (then :func:`no_limit` refuses)."""
    if hdpo.privileged.max_prompt_length is not None:
        return hdpo.privileged.max_prompt_length
    context = select(config, f"{ROLLOUT}.max_model_len")
    return None if context is None else context - config.data.max_response_length


def no_limit(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if hdpo.privileged.n == 0 or max_privileged_prompt_length(config, hdpo) is not None:
        return None
    return (
        f"{ROLLOUT}.max_model_len=null, verl's default: nothing limits privileged prompts then, and the engine "
        "takes what they need from the response. Set it to the context that a privileged prompt and "
        f"data.max_response_length={config.data.max_response_length} need together"
    )


def no_room_for_the_solution(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    longest, plain = max_privileged_prompt_length(config, hdpo), config.data.max_prompt_length
    if hdpo.privileged.n == 0 or longest is None or longest > plain:
        return None
    return (
        f"privileged prompts may have {longest} tokens, no more than plain ones (data.max_prompt_length={plain}), but "
        f"they hold the problem and its solution: raise {ROLLOUT}.max_model_len (now "
        f"{select(config, f'{ROLLOUT}.max_model_len')}, of which data.max_response_length="
        f"{config.data.max_response_length} go to the response) or hdpo.privileged.max_prompt_length"
    )


def no_room_for_the_response(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    wanted, context = hdpo.privileged.max_prompt_length, select(config, f"{ROLLOUT}.max_model_len")
    room = None if context is None else context - config.data.max_response_length
    if hdpo.privileged.n == 0 or wanted is None or room is None or wanted <= room:
        return None
    return (
        f"hdpo.privileged.max_prompt_length={wanted} leaves no full response: {ROLLOUT}.max_model_len={context} minus "
        f"data.max_response_length={config.data.max_response_length} is {room}: lower the first or raise the second"
    )


def micro_batch_too_small(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    longest = max_privileged_prompt_length(config, hdpo)
    if not hdpo.reads_teacher or longest is None or not select(config, f"{ACTOR}.use_dynamic_bsz", False):
        return None
    need = longest + config.data.max_response_length
    part = "ref" if hdpo.teacher == "frozen" else "rollout"
    key = f"actor_rollout_ref.{part}.log_prob_max_token_len_per_gpu"
    budget = select(config, key)
    if budget is None or budget >= need:
        return None
    return (
        f"{key}={budget} is less than the longest privileged prompt and response together, {need} tokens: raise it, "
        "or lower hdpo.privileged.max_prompt_length"
    )
