"""Rules (as in ``rules.py``) on what computes: the actor, its policy loss and the teacher."""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import (
    ACTOR,
    MODEL,
    REF,
    Rule,
    broken_model_config,
    model_value,
    select,
    sequence_parallel_key,
    sequence_parallel_size,
    uses_lora,
)

ATTENTION = f"{MODEL}.override_config.attn_implementation"
FUSED = f"{MODEL}.use_fused_kernels"


def _models(config: DictConfig, hdpo: HDPOConfig) -> tuple[str, ...]:
    """Config nodes of the models whose logits are read."""
    frozen = hdpo.reads_initial_model and not uses_lora(config)
    return (ACTOR, REF) if frozen else (ACTOR,)


def pad_to_length(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    padded = [f"{model}.fsdp_config.pad_to_length" for model in _models(config, hdpo)]
    asked = next((key for key in padded if select(config, key, False)), None)
    if asked is None:
        return None
    if hdpo.distills:
        return (
            f"{asked}=true: verl refuses it together with a logits processor, which the divergence is: set it to false"
        )
    if hdpo.fused_head or select(config, FUSED, False):
        return f"{asked}=true: the fused head makes no room for the padding: set it to false, or do without that head"
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
    sizes = {model: sequence_parallel_size(config, model) for model in _models(config, hdpo)}
    keys = {model: f"{sequence_parallel_key(config, model)}={size}" for model, size in sizes.items()}
    said = keys[max(sizes, key=lambda model: sizes[model])]
    if max(sizes.values()) <= 1:
        return None
    attention = select(config, ATTENTION, "flash_attention_2")
    if not str(attention).startswith("flash_attention_"):
        return (
            f"{said} with {ATTENTION}={attention}: verl patches flash attention only, so each rank would attend to its "
            "own slice alone, and the result would be silently wrong: set the first to 1, or the second to "
            "flash_attention_2"
        )
    if not select(config, f"{MODEL}.use_remove_padding", False):
        return f"{said} with {MODEL}.use_remove_padding=false: verl cuts packed rows only: set the second to true"
    fitting = (sizes[ACTOR],) if hdpo.teacher == "mixed" else (1, sizes[ACTOR])
    if REF in sizes and sizes[REF] not in fitting:
        return (
            f"{keys[REF]} and {keys[ACTOR]} with hdpo.teacher={hdpo.teacher}: the teacher's slices would hold other "
            f"tokens than the student's: set the first to {sizes[ACTOR]}"
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
    # A mixed teacher reads the actor's micro-batches.
    frozen = REF in _models(config, hdpo) and hdpo.teacher == "frozen"
    fixed = select(config, f"{ACTOR}.ppo_micro_batch_size_per_gpu") is not None
    if not frozen or not fixed or select(config, f"{REF}.log_prob_use_dynamic_bsz", False) or select(config, key):
        return None
    return (
        f"{key} is not set, and the frozen teacher reads in micro-batches of that many rows: set it, for example to 8"
    )


def mixed_without_logits(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    found = {"hdpo.fused_head": hdpo.fused_head, FUSED: select(config, FUSED, False)}
    asked = [f"{name}=true" for name, value in found.items() if value]
    if not asked or hdpo.teacher != "mixed" or not hdpo.reads_teacher:
        return None
    return (
        f"{' and '.join(asked)} with hdpo.teacher=mixed: the mixture is made of the logits of both models, which the "
        "fused head never makes: set it to false, or use another teacher"
    )


def frozen_adapter(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    path = select(config, f"{MODEL}.lora_adapter_path")
    if path is None or not hdpo.reads_initial_model:
        return None
    return (
        f"{MODEL}.lora_adapter_path={path} with hdpo.teacher={hdpo.teacher}: the teacher would be the model without "
        "that adapter, and not the one that training starts from: merge the adapter into the model, or use "
        "teacher=drifting"
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


def unreadable_model(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    return broken_model_config(config)


def topk_above_vocabulary(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """For a model on this machine; another is checked at start-up (:mod:`recipe.hdpo.config.startup`)."""
    size = model_value(config, "vocab_size")
    if hdpo.topk is None or size is None or hdpo.topk <= size:
        return None
    return topk_message(hdpo.topk, size)


def topk_message(topk: int, vocabulary: int) -> str:
    """The refusal of a top-k above the vocabulary."""
    return f"hdpo.topk={topk} is larger than the model's vocabulary of {vocabulary}: lower it, or set it to null"


def vision_positions(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """For a model on this machine; another is checked at start-up."""
    ropes = [model_value(config, name) or {} for name in ("rope_scaling", "rope_parameters")]
    if not hdpo.distills or not any("mrope_section" in rope for rope in ropes):
        return None
    return (
        f"{MODEL}.path={select(config, f'{MODEL}.path')} is a vision-language model with positions of several "
        "dimensions, and kept trajectories have those of a text: use a language model"
    )


MODEL_RULES: tuple[Rule, ...] = (
    pad_to_length,
    frozen_precision,
    sequence_parallel,
    loss_of_micro_batches,
    frozen_micro_batch,
    frozen_adapter,
    mixed_without_logits,
    idle_adapter,
    fsdp1_on_a_cpu,
    unreadable_model,
    topk_above_vocabulary,
    vision_positions,
)
