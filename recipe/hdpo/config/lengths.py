"""How long a privileged prompt may be; lengths that cannot work together are refused as in ``rules.py``."""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import ACTOR, REF, ROLLOUT, Rule, select, uses_lora


def max_privileged_prompt_length(config: DictConfig, hdpo: HDPOConfig) -> int | None:
    """Longest privileged prompt in tokens; None without a context length (then :func:`no_limit` refuses)."""
    if hdpo.privileged.max_prompt_length is not None:
        return hdpo.privileged.max_prompt_length
    context = select(config, f"{ROLLOUT}.max_model_len")
    return None if context is None else context - config.data.max_response_length


def no_limit(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if hdpo.privileged.n == 0 or select(config, f"{ROLLOUT}.max_model_len") is not None:
        return None
    return (
        f"{ROLLOUT}.max_model_len=null, verl's default: the engine then takes from the response what a "
        "privileged prompt needs. Set it to the context that a privileged prompt and "
        f"data.max_response_length={config.data.max_response_length} need together"
    )


def no_room_for_the_solution(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    longest, plain = max_privileged_prompt_length(config, hdpo), config.data.max_prompt_length
    if hdpo.privileged.n == 0 or longest is None or longest > plain or hdpo.privileged.source == "problem":
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
    """The teacher reads privileged prompt and response in one row; with ``use=replace`` the actor trains on them."""
    longest = max_privileged_prompt_length(config, hdpo)
    if longest is None or not select(config, f"{ACTOR}.use_dynamic_bsz", False):
        return None
    keys = _budgets(config, hdpo)
    need = longest + config.data.max_response_length
    small = [f"{key}={budget}" for key in keys if (budget := select(config, key)) is not None and budget < need]
    if not small:
        return None
    return (
        f"{', '.join(small)} is less than the longest privileged prompt and response together, {need} tokens: raise "
        "it, or lower hdpo.privileged.max_prompt_length"
    )


def _budgets(config: DictConfig, hdpo: HDPOConfig) -> list[str]:
    """Keys of the token budgets that a privileged prompt and its response must fit into."""
    log_probs = f"{ROLLOUT}.log_prob_max_token_len_per_gpu"
    reference = f"{REF}.log_prob_max_token_len_per_gpu"
    if hdpo.reads_teacher:
        # With LoRA the actor without its adapter is the frozen teacher.
        return [reference if hdpo.teacher == "frozen" and not uses_lora(config) else log_probs]
    if hdpo.privileged.n == 0 or hdpo.privileged.use != "replace" or hdpo.privileged.source == "problem":
        return []
    kl = select(config, f"{ACTOR}.use_kl_loss", False) or select(config, "algorithm.use_kl_in_reward", False)
    return [f"{ACTOR}.ppo_max_token_len_per_gpu", log_probs, *([reference] if kl and not uses_lora(config) else [])]


LENGTH_RULES: tuple[Rule, ...] = (no_limit, no_room_for_the_solution, no_room_for_the_response, micro_batch_too_small)
