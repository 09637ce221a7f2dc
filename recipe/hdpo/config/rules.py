"""What cannot work together with HDPO. Every refusal names the value, the reason and the way out.

Where one value alone is wrong, it stands in the table of ``wrong_values.py``; all else is a function, a rule. A rule
takes the composed config and the recipe's knobs, and returns a message, or None where the config is fine. Rules on the
models are in ``model_rules.py``, others in the file that their subject names (``*_rules.py``).
"""

from __future__ import annotations

import importlib.metadata
import os

from omegaconf import DictConfig

from recipe.hdpo.algorithm.default_templates import FEEDBACK, SOLUTION
from recipe.hdpo.algorithm.message_template import compile_template
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.agent_rules import AGENT_RULES
from recipe.hdpo.config.async_rules import ASYNC_RULES
from recipe.hdpo.config.engine_rules import engines_of_odd_size, process_of_several_ranks
from recipe.hdpo.config.gate_rules import GATE_RULES
from recipe.hdpo.config.keys import ROLLOUT, Rule, is_derived, select
from recipe.hdpo.config.length_rules import LENGTH_RULES
from recipe.hdpo.config.model_rules import MODEL_RULES
from recipe.hdpo.config.reward_rules import REWARD_RULES
from recipe.hdpo.config.wrong_values import TABLE

VERL_VERSION = "0.9.1"
MANAGER = "recipe.hdpo.rollout.agent_loop.HDPOAgentLoopManager"


def wrong_verl(config: DictConfig, hdpo: HDPOConfig | None = None) -> str | None:
    installed = importlib.metadata.version("verl")
    if installed == VERL_VERSION:
        return None
    return (
        f"verl {installed} is installed; the recipe is written for and tested with {VERL_VERSION}: "
        f"pip install verl=={VERL_VERSION}"
    )


def cpu_without_platform(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if select(config, "trainer.device") != "cpu" or os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        return None
    return "trainer.device=cpu, but verl's platform is another: set VERL_PLATFORM=cpu in the environment"


def other_trainer(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """Trainers derived from the recipe's register under names that begin with its name."""
    mode = str(select(config, "trainer.v1.trainer_mode"))
    if mode.startswith("hdpo"):
        return None
    ours = f"hdpo_{mode}" if mode.endswith("async") else "hdpo"
    return f"trainer.v1.trainer_mode={mode} is a trainer without HDPO: add +use=hdpo, or set it to {ours}"


def no_rollout_hook(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    manager = select(config, f"{ROLLOUT}.agent.agent_loop_manager_class")
    needed_by = {
        f"hdpo.privileged.n={hdpo.privileged.n}": hdpo.privileged.n > 0,
        f"hdpo.rollout_seed={hdpo.rollout_seed}": hdpo.rollout_seed is not None,
        "hdpo.validate_greedy=true": hdpo.validate_greedy,
    }
    asked = [name for name, needed in needed_by.items() if needed]
    if not asked or (manager is not None and is_derived(str(manager), MANAGER)):
        return None
    return (
        f"{ROLLOUT}.agent.agent_loop_manager_class={manager} never re-issues cliffs, nor does anything else for "
        f"{', '.join(asked)}: set it to {MANAGER} or a class derived from it, or switch these off"
    )


def one_rollout(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    size = select(config, f"{ROLLOUT}.n", 1)
    if size > 1 or select(config, "algorithm.adv_estimator") != "hdpo":
        return None
    return f"{ROLLOUT}.n={size}: an advantage needs other rollouts of the same prompt: set it to 2 or more (paper: 16)"


def greedy_samples(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """verl's validation reads no do_sample, and its temperature is 0 by default."""
    key = f"{ROLLOUT}.val_kwargs.temperature"
    if not hdpo.validate_greedy or select(config, key, 1.0) > 0:
        return None
    return (
        f"hdpo.validate_greedy=true beside {key}=0 (verl's default): validation's samples are the greedy response as "
        f"well, and its pass@k says nothing more: set {key}=1.0, or hdpo.validate_greedy=false"
    )


def other_engine(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    name = select(config, f"{ROLLOUT}.name")
    if name == "trtllm" and hdpo.privileged.n > 0:
        return (
            f"{ROLLOUT}.name=trtllm: verl's server for it takes what a privileged prompt needs from the response, "
            "down to nothing: use vllm"
        )
    if name != "vllm" and hdpo.rollout_seed is not None:
        return f"hdpo.rollout_seed={hdpo.rollout_seed} is vLLM's, not {name}'s: set it to null, or {ROLLOUT}.name=vllm"
    return None


def too_many_replacements(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    size = select(config, f"{ROLLOUT}.n", 1)
    if hdpo.privileged.use != "replace" or hdpo.privileged.n < size:
        return None
    return (
        f"hdpo.privileged.n={hdpo.privileged.n} with use=replace could replace all {size} rollouts of a group "
        f"({ROLLOUT}.n), which leaves no advantage: lower the first or raise the second"
    )


def bad_template(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    options = hdpo.privileged
    try:
        for kind, template in ((SOLUTION, options.template), (FEEDBACK, options.feedback_template)):
            compile_template(template, options.placement, kind)
    except ValueError as error:
        return str(error)
    return None


RULES: tuple[Rule, ...] = (
    wrong_verl,
    *TABLE,
    other_trainer,
    no_rollout_hook,
    other_engine,
    engines_of_odd_size,
    process_of_several_ranks,
    one_rollout,
    greedy_samples,
    *REWARD_RULES,
    cpu_without_platform,
    *ASYNC_RULES,
    *MODEL_RULES,
    *LENGTH_RULES,
    *AGENT_RULES,
    too_many_replacements,
    bad_template,
    *GATE_RULES,
)
