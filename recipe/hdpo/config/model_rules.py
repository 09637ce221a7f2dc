"""Rules (as in ``rules.py``) on what computes, the actor, its policy loss and the teacher, and on lengths."""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import ACTOR, MODEL, REF, ROLLOUT, Rule, select, uses_lora
from recipe.hdpo.config.lengths import max_privileged_prompt_length


def _models(config: DictConfig, hdpo: HDPOConfig) -> tuple[str, ...]:
    """Config nodes of the models whose logits are read."""
    frozen = hdpo.reads_teacher and hdpo.teacher == "frozen" and not uses_lora(config)
    return (ACTOR, REF) if frozen else (ACTOR,)


def pad_to_length(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    for key in [f"{model}.fsdp_config.pad_to_length" for model in _models(config, hdpo)]:
        if select(config, key, False):
            return (
                f"{key}=true: verl refuses it together with a logits processor, which the divergence is: "
                "set it to false"
            )
    return None


def frozen_precision(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    from verl.utils.torch_dtypes import PrecisionType

    keys = [f"{model}.fsdp_config.mixed_precision.param_dtype" for model in _models(config, hdpo)]
    # verl's default where nothing is set.
    dtypes = [str(select(config, key, "bf16")) for key in keys]
    if len(set(dtypes)) == 1 or len(set(map(PrecisionType.to_dtype, dtypes))) == 1:
        return None
    return (
        f"{keys[0]} is {dtypes[0]} and {keys[1]} is {dtypes[1]}: teacher and student would differ by rounding, and "
        "that difference would be distilled: set both alike"
    )


def sequence_parallel(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    parts = ("", "fsdp_config.")
    for key in [f"{m}.{part}ulysses_sequence_parallel_size" for m in _models(config, hdpo) for part in parts]:
        size = select(config, key, 1)
        if size > 1:
            return (
                f"{key}={size}: teacher and student sequences differ in length, so their shards do not align: "
                "set it to 1"
            )
    return None


def loss_of_micro_batches(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """Losses that depend on how a mini-batch is cut into micro-batches, which kept rows change."""
    if not hdpo.distills or not select(config, f"{ACTOR}.use_dynamic_bsz", False):
        return None
    loss, mode = f"{ACTOR}.policy_loss.loss_mode", f"{ACTOR}.loss_agg_mode"
    if select(config, loss) == "geo_mean":
        return (
            f"{loss}=geo_mean is a mean over each micro-batch, so GRPO's weight would grow with the number of kept "
            f"rows: set {ACTOR}.use_dynamic_bsz=false, or use another loss, such as hdpo"
        )
    if select(config, loss) in ("clip_cov", "kl_cov"):
        return (
            f"{loss}={select(config, loss)} picks tokens in each micro-batch, one at least, so kept rows would change "
            f"which ones and how many: set {ACTOR}.use_dynamic_bsz=false, or use another loss, such as hdpo"
        )
    if select(config, mode) == "seq-mean-token-sum-norm" and select(config, f"{ACTOR}.loss_scale_factor") is None:
        return (
            f"{mode}=seq-mean-token-sum-norm divides by the longest response of each micro-batch, which kept rows "
            f"change: set {ACTOR}.loss_scale_factor, for example to data.max_response_length, or use_dynamic_bsz=false"
        )
    return None


def frozen_micro_batch(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """verl asks for the actor's micro-batch size, and for the reference model's where a KL term needs that model."""
    key = f"{REF}.log_prob_micro_batch_size_per_gpu"
    frozen = REF in _models(config, hdpo)
    fixed = select(config, f"{ACTOR}.ppo_micro_batch_size_per_gpu") is not None
    if not frozen or not fixed or select(config, f"{REF}.log_prob_use_dynamic_bsz", False) or select(config, key):
        return None
    return (
        f"{key} is not set, and the frozen teacher reads in micro-batches of that many rows: set it, for example to 8"
    )


def frozen_adapter(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    path = select(config, f"{MODEL}.lora_adapter_path")
    if path is None or hdpo.teacher != "frozen" or not hdpo.reads_teacher:
        return None
    return (
        f"{MODEL}.lora_adapter_path={path} with hdpo.teacher=frozen: the teacher would be the model without that "
        "adapter, and not the one that training starts from: merge the adapter into the model, or use teacher=drifting"
    )


def idle_adapter(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """verl's trainer goes by any of three keys, its FSDP engine by one."""
    rank = f"{MODEL}.lora_rank"
    if select(config, rank, 0) > 0:
        return None
    for key in ("lora.rank", "lora_adapter_path"):
        if value := select(config, f"{MODEL}.{key}"):
            return (
                f"{MODEL}.{key}={value}, but {rank} is 0: verl's FSDP engine would pass over the adapter and train "
                f"all weights: set {rank} to the adapter's rank"
            )
    return None


def fsdp1_on_a_cpu(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if select(config, "trainer.device") != "cpu":
        return None
    for key in [f"{model}.strategy" for model in _models(config, hdpo)]:
        if select(config, key) == "fsdp":
            return f"{key}=fsdp with trainer.device=cpu: PyTorch's FSDP1 needs an accelerator: use fsdp2"
    return None


def topk_above_vocabulary(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """For a model on disk; one on a hub is checked at start-up (:mod:`recipe.hdpo.config.startup`)."""
    path = Path(str(select(config, f"{MODEL}.path", ""))) / "config.json"
    if hdpo.topk is None or not path.is_file():
        return None
    size = json.loads(path.read_text(encoding="utf-8")).get("vocab_size")
    return topk_message(hdpo.topk, size) if size is not None and hdpo.topk > size else None


def topk_message(topk: int, vocabulary: int) -> str:
    """The refusal of a top-k above the vocabulary."""
    return f"hdpo.topk={topk} is larger than the model's vocabulary of {vocabulary}: lower it, or set it to null"


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


MODEL_RULES: tuple[Rule, ...] = (
    pad_to_length,
    frozen_precision,
    sequence_parallel,
    loss_of_micro_batches,
    frozen_micro_batch,
    frozen_adapter,
    idle_adapter,
    fsdp1_on_a_cpu,
    topk_above_vocabulary,
    no_limit,
    no_room_for_the_solution,
    no_room_for_the_response,
    micro_batch_too_small,
)
