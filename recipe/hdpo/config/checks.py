"""Combinations that cannot work, refused when the config is read: the value, the reason, the way out.

Every rule is a function of the composed config that returns a message, or None where the config is fine. They run in
the driver before anything starts (a Hydra callback of the recipe's config) and once more in the trainer.
"""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.privileged import compile_template, text_at

logger = logging.getLogger(__name__)

VERL_VERSION = "0.9.1"
PRIVILEGED_ROOM = "the privileged prompt holds the problem and its solution"

Rule = Callable[[DictConfig, HDPOConfig], str | None]


def _select(config: DictConfig, key: str, default: Any = None) -> Any:
    value = OmegaConf.select(config, key)
    return default if value is None else value


def _wrong_verl(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    installed = importlib.metadata.version("verl")
    if installed == VERL_VERSION:
        return None
    return f"verl {installed} is installed; the recipe is written for and tested with {VERL_VERSION}: pip install verl=={VERL_VERSION}"


def _not_v1(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if _select(config, "trainer.use_v1", False):
        return None
    return "trainer.use_v1=false runs verl's legacy trainer, which has no hook for privileged rollouts: set trainer.use_v1=true"


def _pieces_not_chosen(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    key = "actor_rollout_ref.rollout.agent.agent_loop_manager_class"
    manager = "recipe.hdpo.rollout.HDPOAgentLoopManager"
    if hdpo.privileged.n == 0 or _select(config, key) == manager:
        return None
    return f"{key}={_select(config, key)} never re-issues cliffs: set it to {manager}, or hdpo.privileged.n=0"


def _strategy(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    strategy = _select(config, "actor_rollout_ref.actor.strategy")
    if strategy in ("fsdp", "fsdp2"):
        return None
    return f"actor_rollout_ref.actor.strategy={strategy}: the distillation term is written for the FSDP engine: use fsdp2 (or fsdp)"


def _fused_kernels(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not _select(config, "actor_rollout_ref.model.use_fused_kernels", False):
        return None
    return (
        "actor_rollout_ref.model.use_fused_kernels=true never materialises the logits that JSD_k reads: set it to false"
    )


def _pad_to_length(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    key = "actor_rollout_ref.actor.fsdp_config.pad_to_length"
    if not _select(config, key, False):
        return None
    return f"{key}=true: verl refuses it together with a logits processor, which JSD_k needs: set it to false"


def _sequence_parallel(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    for key in (
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size",
        "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size",
    ):
        size = _select(config, key, 1)
        if size > 1:
            return f"{key}={size}: teacher and student sequences have different lengths, so their shards do not align: set it to 1"
    return None


def _filter_groups(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not _select(config, "algorithm.filter_groups.enable", False):
        return None
    return "algorithm.filter_groups.enable=true evicts groups of equal reward, so every cliff: set it to false"


def _multi_turn(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if _select(config, "actor_rollout_ref.rollout.multi_turn.enable", False):
        return "actor_rollout_ref.rollout.multi_turn.enable=true: privileged rollouts are single-turn: set it to false"
    agent = _select(config, "actor_rollout_ref.rollout.agent.default_agent_loop")
    if agent != "single_turn_agent":
        return f"actor_rollout_ref.rollout.agent.default_agent_loop={agent}: privileged rollouts are single-turn: use single_turn_agent"
    return None


def _colocated_reward_model(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not _select(config, "reward.reward_model.enable", False):
        return None
    if _select(config, "reward.reward_model.enable_resource_pool", False):
        return None
    return (
        "reward.reward_model.enable=true without its own resource pool scores rollouts after the rollout phase, too late to "
        "find cliffs: set reward.reward_model.enable_resource_pool=true, or use a rule-based reward"
    )


def _verl_distillation(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if not _select(config, "distillation.enabled", False):
        return None
    return "distillation.enabled=true is verl's own distillation from another model; its loss would replace HDPO's: set it to false"


def _context(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if hdpo.privileged.n == 0:
        return None
    longest = max_privileged_prompt_length(config, hdpo)
    plain = config.data.max_prompt_length
    if longest is None or longest > plain:
        return None
    return (
        f"privileged prompts may have {longest} tokens, no more than plain ones (data.max_prompt_length={plain}), but "
        f"{PRIVILEGED_ROOM}: raise actor_rollout_ref.rollout.max_model_len (now "
        f"{_select(config, 'actor_rollout_ref.rollout.max_model_len')}, of which data.max_response_length="
        f"{config.data.max_response_length} go to the response) or hdpo.privileged.max_prompt_length"
    )


def _context_overrun(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    wanted, context = (
        hdpo.privileged.max_prompt_length,
        _select(config, "actor_rollout_ref.rollout.max_model_len"),
    )
    room = None if context is None else context - config.data.max_response_length
    if hdpo.privileged.n == 0 or wanted is None or room is None or wanted <= room:
        return None
    return (
        f"hdpo.privileged.max_prompt_length={wanted} leaves no full response: rollout.max_model_len={context} minus "
        f"data.max_response_length={config.data.max_response_length} is {room}: lower the first or raise the second"
    )


def _micro_batch_tokens(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    longest = max_privileged_prompt_length(config, hdpo)
    if not hdpo.distills or longest is None or not _select(config, "actor_rollout_ref.actor.use_dynamic_bsz", False):
        return None
    need = longest + config.data.max_response_length
    frozen = hdpo.teacher == "frozen"
    key = "actor_rollout_ref." + ("ref" if frozen else "rollout") + ".log_prob_max_token_len_per_gpu"
    budget = _select(config, key)
    if budget is None or budget >= need:
        return None
    return f"{key}={budget} is less than the longest privileged prompt plus response, {need} tokens: raise it, or lower hdpo.privileged.max_prompt_length"


def _template(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    try:
        compile_template(hdpo.privileged.template, hdpo.privileged.placement)
    except ValueError as error:
        return str(error)
    return None


RULES: tuple[Rule, ...] = (
    _wrong_verl,
    _not_v1,
    _pieces_not_chosen,
    _strategy,
    _fused_kernels,
    _pad_to_length,
    _sequence_parallel,
    _filter_groups,
    _multi_turn,
    _colocated_reward_model,
    _verl_distillation,
    _context,
    _context_overrun,
    _micro_batch_tokens,
    _template,
)


def max_privileged_prompt_length(config: DictConfig, hdpo: HDPOConfig) -> int | None:
    """Longest privileged prompt in tokens; None where the model's own context length decides."""
    if hdpo.privileged.max_prompt_length is not None:
        return hdpo.privileged.max_prompt_length
    context = _select(config, "actor_rollout_ref.rollout.max_model_len")
    return None if context is None else context - config.data.max_response_length


def problems(config: DictConfig) -> Iterator[str]:
    """Every reason for which this config cannot run, each with its way out."""
    try:
        hdpo = HDPOConfig.from_mapping(OmegaConf.to_container(OmegaConf.select(config, "hdpo"), resolve=True))
    except (ValueError, AttributeError) as error:
        yield str(error) if isinstance(error, ValueError) else "the config has no `hdpo` node"
        return
    for rule in RULES:
        message = rule(config, hdpo)
        if message:
            yield message


def check_config(config: DictConfig) -> HDPOConfig:
    """Validate a composed config.

    Raises:
        ValueError: lists every problem.
    """
    found = list(problems(config))
    if found:
        raise ValueError("HDPO cannot run with this config:\n" + "\n".join(f"  - {message}" for message in found))
    return HDPOConfig.from_mapping(OmegaConf.to_container(config.hdpo, resolve=True))


def check_vocabulary(config: DictConfig, hdpo: HDPOConfig) -> None:
    """Refuse a top-k that is larger than the model's vocabulary.

    Raises:
        ValueError: names both numbers.
    """
    from transformers import AutoConfig

    model = config.actor_rollout_ref.model
    hf_config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.get("trust_remote_code", False))
    size = hf_config.get_text_config().vocab_size
    if hdpo.topk is not None and hdpo.topk > size:
        raise ValueError(
            f"hdpo.topk={hdpo.topk} is larger than the model's vocabulary of {size}: lower it, or set it to null"
        )


def check_data(config: DictConfig, hdpo: HDPOConfig, dataset: Any) -> None:
    """Refuse training data that privileged rollouts cannot serve, before anything is rolled out.

    Raises:
        ValueError: multi-modal columns, another agent, or no row with the text that a privileged prompt shows.
    """
    frame = dataset.dataframe
    columns = set(frame.column_names)
    for key in ("image_key", "video_key", "audio_key"):
        column = config.data.get(key)
        if column in columns:
            raise ValueError(
                f"data column '{column}' (data.{key}) is multi-modal; HDPO's privileged prompts are text: drop it"
            )
    if "agent_name" in columns and set(frame["agent_name"]) != {"single_turn_agent"}:
        raise ValueError(
            "data column 'agent_name' names agents other than single_turn_agent; privileged rollouts are single-turn"
        )
    if hdpo.privileged.n == 0:
        return
    key = hdpo.privileged.answer_key if hdpo.privileged.source == "answer" else hdpo.privileged.solution_key
    columns_needed = [key.split(".")[0]]
    without = [
        i
        for i, row in enumerate(frame.select_columns(columns_needed) if columns_needed[0] in columns else [{}])
        if text_at(row, key) is None
    ]
    if columns_needed[0] not in columns or len(without) == len(frame):
        raise ValueError(
            f"no row of {list(config.data.train_files)} has a text at {key}, which privileged prompts show "
            f"(hdpo.privileged.source={hdpo.privileged.source}): name the right column by hdpo.privileged."
            f"{'answer' if hdpo.privileged.source == 'answer' else 'solution'}_key"
        )
    if without:
        logger.warning(
            f"{len(without)} of {len(frame)} training rows have no text at {key}: as cliffs they are skipped and counted "
            f"(hdpo/skipped_no_solution); first rows: {without[:5]}"
        )


def missing_registrations() -> list[str]:
    """Which of the recipe's names stock verl does not know in this process."""
    from verl.trainer.ppo import core_algos
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    known = {
        "advantage estimator": core_algos.ADV_ESTIMATOR_REGISTRY,
        "policy loss": core_algos.POLICY_LOSS_REGISTRY,
        "trainer": TRAINER_REGISTRY,
    }
    return [f"{kind} 'hdpo'" for kind, registry in known.items() if "hdpo" not in registry]


class ConfigCheckCallback:
    """Hydra callback: stops the run in the driver, before Ray starts. Hydra turns exceptions of callbacks into
    warnings, so it leaves by ``SystemExit``."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Called by Hydra with the composed config."""
        missing = missing_registrations()
        if missing:
            sys.exit(
                f"verl does not know HDPO's {', '.join(missing)}: the verl.plugins entry point of this package was not "
                "loaded. Install it in this environment (pip install .), and leave VERL_USE_EXTERNAL_PLUGINS unset or "
                "let it name 'hdpo'; with the entry point switched off, set VERL_USE_EXTERNAL_MODULES=recipe.hdpo.plugin"
            )
        try:
            check_config(config)
        except ValueError as error:
            sys.exit(str(error))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda **_: None
        raise AttributeError(name)
