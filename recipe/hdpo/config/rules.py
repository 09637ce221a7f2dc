"""What cannot work together with HDPO: one function a rule, each with the value, the reason and the way out.

A rule takes the composed config and the recipe's knobs, and returns a message, or None where the config is fine.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import ACTOR, MODEL, REF, ROLLOUT, Rule, select, uses_lora
from recipe.hdpo.config.lengths import LENGTH_RULES
from recipe.hdpo.config.rollout_rules import ROLLOUT_RULES
from recipe.hdpo.privileged import compile_template

VERL_VERSION = "0.9.1"


def wrong_verl(config: DictConfig, hdpo: HDPOConfig | None = None) -> str | None:
    installed = importlib.metadata.version("verl")
    if installed == VERL_VERSION:
        return None
    return (
        f"verl {installed} is installed; the recipe is written for and tested with {VERL_VERSION}: "
        f"pip install verl=={VERL_VERSION}"
    )


def legacy_trainer(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if select(config, "trainer.use_v1", False):
        return None
    return (
        "trainer.use_v1=false runs verl's legacy trainer, which has no hook for privileged rollouts: "
        "set trainer.use_v1=true"
    )


def cpu_without_platform(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if select(config, "trainer.device") != "cpu" or os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        return None
    return "trainer.device=cpu, but verl's platform is another: set VERL_PLATFORM=cpu in the environment"


def not_fsdp(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    strategy = select(config, f"{ACTOR}.strategy")
    if strategy in ("fsdp", "fsdp2"):
        return None
    return f"{ACTOR}.strategy={strategy}: the distillation term is written for the FSDP engine: use fsdp2 (or fsdp)"


def fused_kernels(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not select(config, f"{MODEL}.use_fused_kernels", False):
        return None
    return f"{MODEL}.use_fused_kernels=true never makes the logits that the divergence reads: set it to false"


def pad_to_length(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    key = f"{ACTOR}.fsdp_config.pad_to_length"
    if not select(config, key, False):
        return None
    return f"{key}=true: verl refuses it together with a logits processor, which the divergence is: set it to false"


def sequence_parallel(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    models = (ACTOR, REF) if hdpo.reads_teacher and hdpo.teacher == "frozen" else (ACTOR,)
    for key in [f"{model}.{part}ulysses_sequence_parallel_size" for model in models for part in ("", "fsdp_config.")]:
        size = select(config, key, 1)
        if size > 1:
            return (
                f"{key}={size}: teacher and student sequences differ in length, so their shards do not align: "
                "set it to 1"
            )
    return None


def other_trainer(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """Trainers derived from the recipe's register under names that begin with its name."""
    mode = str(select(config, "trainer.v1.trainer_mode"))
    if mode.startswith("hdpo"):
        return None
    return f"trainer.v1.trainer_mode={mode} is a trainer without HDPO: add +use=hdpo, or set it to hdpo"


def bypass_mode(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    key = f"{ACTOR}.policy_loss.loss_mode"
    if select(config, key) != "bypass_mode" or not hdpo.reads_teacher:
        return None
    return f"{key}=bypass_mode raises on a micro-batch of privileged rows alone: use another loss, such as hdpo"


def frozen_micro_batch(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """verl asks for the actor's micro-batch size, and for the reference model's where a KL term needs that model."""
    key = f"{REF}.log_prob_micro_batch_size_per_gpu"
    frozen = hdpo.reads_teacher and hdpo.teacher == "frozen" and not uses_lora(config)
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


def verl_distillation(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not select(config, "distillation.enabled", False):
        return None
    return (
        "distillation.enabled=true is verl's own distillation from another model, whose loss would take the place of "
        "HDPO's: set it to false"
    )


def too_many_replacements(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    size = select(config, f"{ROLLOUT}.n", 1)
    if hdpo.privileged.use != "replace" or hdpo.privileged.n < size:
        return None
    return (
        f"hdpo.privileged.n={hdpo.privileged.n} with use=replace could replace all {size} rollouts of a group "
        f"({ROLLOUT}.n), which leaves no advantage: lower the first or raise the second"
    )


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


def bad_template(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    try:
        compile_template(hdpo.privileged.template, hdpo.privileged.placement)
    except ValueError as error:
        return str(error)
    return None


RULES: tuple[Rule, ...] = (
    wrong_verl,
    legacy_trainer,
    other_trainer,
    *ROLLOUT_RULES,
    cpu_without_platform,
    not_fsdp,
    fused_kernels,
    pad_to_length,
    sequence_parallel,
    bypass_mode,
    frozen_micro_batch,
    frozen_adapter,
    verl_distillation,
    *LENGTH_RULES,
    too_many_replacements,
    topk_above_vocabulary,
    bad_template,
)
