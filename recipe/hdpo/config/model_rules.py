"""Rules (as in ``rules.py``) on what computes: the actor, its policy loss, and the teacher."""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import ACTOR, MODEL, REF, Rule, select, uses_lora


def not_fsdp(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    strategy = select(config, f"{ACTOR}.strategy")
    if strategy in ("fsdp", "fsdp2"):
        return None
    return f"{ACTOR}.strategy={strategy}: the distillation term is written for the FSDP engine: use fsdp2 (or fsdp)"


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


def bypass_mode(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    key = f"{ACTOR}.policy_loss.loss_mode"
    if select(config, key) != "bypass_mode" or not hdpo.distills:
        return None
    return f"{key}=bypass_mode raises on a micro-batch of privileged rows alone: use another loss, such as hdpo"


def loss_of_micro_batches(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """Losses whose scale depends on how a mini-batch is cut, which kept rows change."""
    if not hdpo.distills or not select(config, f"{ACTOR}.use_dynamic_bsz", False):
        return None
    loss, mode = f"{ACTOR}.policy_loss.loss_mode", f"{ACTOR}.loss_agg_mode"
    if select(config, loss) == "geo_mean":
        return (
            f"{loss}=geo_mean is a mean over each micro-batch, so GRPO's weight would grow with the number of kept "
            f"rows: set {ACTOR}.use_dynamic_bsz=false, or use another loss, such as hdpo"
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


MODEL_RULES: tuple[Rule, ...] = (
    not_fsdp,
    pad_to_length,
    frozen_precision,
    sequence_parallel,
    bypass_mode,
    loss_of_micro_batches,
    frozen_micro_batch,
    frozen_adapter,
)
