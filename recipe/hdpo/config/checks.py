"""Validation of a composed config: in the driver before anything starts, and once more in the trainer."""

from __future__ import annotations

import copy
import logging
import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.adapt import adapt
from recipe.hdpo.config.agent_rules import idle_multi_turn
from recipe.hdpo.config.keys import INTEGERS, NEVER_NULL, ROLLOUT, Rule, keys_read
from recipe.hdpo.config.preflight import not_ready
from recipe.hdpo.config.reward_rules import penalised_length
from recipe.hdpo.config.rules import RULES, wrong_verl
from recipe.hdpo.config.switched_on import lost_choices, lost_values

logger = logging.getLogger(__name__)

# The second one is verl's old name of "keep one".
KEEP = ("trainer.max_actor_ckpt_to_keep", "trainer.remove_previous_ckpt_in_save")


def read_hdpo(config: DictConfig) -> HDPOConfig:
    """The recipe's knobs of a composed config.

    Raises:
        ValueError: see :meth:`HDPOConfig.from_mapping`.
    """
    node = OmegaConf.select(config, "hdpo")
    knobs: Any = None if node is None else OmegaConf.to_container(node, resolve=True)
    return HDPOConfig.from_mapping(knobs)


def refusals(config: DictConfig) -> Iterator[str]:
    """Every reason for which this config cannot run, each with its way out.

    The rules see the config as it will run (:func:`~recipe.hdpo.config.adapt.adapt`); ``config`` itself stays as it is.
    """
    try:
        hdpo = read_hdpo(config)
    except ValueError as error:
        yield str(error)
        return
    wrong = list(wrong_numbers(config))
    if wrong:
        yield from wrong  # the rules compute with these
        return
    config = copy.deepcopy(config)

    def adapts(config: DictConfig, hdpo: HDPOConfig) -> None:
        adapt(config, hdpo)

    for rule in (adapts, *RULES):
        message = _asked(rule, config, hdpo)
        if message is not None:
            yield message


def _asked(rule: Rule, config: DictConfig, hdpo: HDPOConfig) -> str | None:
    """A rule's message; one that names the rule and what it looked at where it fails."""
    keys_read.clear()
    try:
        return rule(config, hdpo)
    except Exception as error:
        looked_at = f" (it looked at {', '.join(dict.fromkeys(keys_read))})" if keys_read else ""
        name = getattr(rule, "__name__", repr(rule))
        return f"the check {name} cannot read this config{looked_at}: {type(error).__name__}: {error}"


def wrong_numbers(config: DictConfig) -> Iterator[str]:
    """Values that are no numbers, and that the rules compute with; and a temperature that samples nothing."""
    for key in INTEGERS:
        value = _value(config, key)
        if value is None and key in NEVER_NULL:
            yield f"{key}=null: it has to be a number"
        elif value is not None and type(value) is not int:
            hint = "; text from an environment variable becomes a number by ${oc.decode:${oc.env:NAME}}"
            yield f"{key}={value!r} has to be a whole number{hint if isinstance(value, str) else ''}"
        elif isinstance(value, int) and key in NEVER_NULL and value < 1:
            yield f"{key}={value} has to be at least 1"
    key = f"{ROLLOUT}.temperature"
    value = _value(config, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        yield f"{key}={value!r} has to be a number above 0: rollouts are sampled, and both distributions are read at it"


def _value(config: DictConfig, key: str) -> Any:
    """The value at a key; where it cannot be had (a missing environment variable), the error in its place."""
    try:
        return OmegaConf.select(config, key)
    except Exception as error:
        return error


def check_config(config: DictConfig) -> HDPOConfig:
    """Validate a composed config and return the recipe's knobs.

    Raises:
        ValueError: lists every refusal.
    """
    _raise("HDPO cannot run with this config:", refusals(config))
    return read_hdpo(config)


def _raise(title: str, messages: Iterable[str]) -> None:
    found = list(messages)
    if found:
        raise ValueError("\n".join([title, *(f"  - {message}" for message in found)]))


def warnings_of(config: DictConfig) -> Iterator[str]:
    """What may run, and should not be left as it is. Said once, in the driver."""
    yield from filter(None, (idle_multi_turn(config), penalised_length(config)))
    keeps_one = [key for key in KEEP if OmegaConf.select(config, key) == 1]
    if keeps_one and (OmegaConf.select(config, "trainer.save_freq") or 0) > 0:
        yield (
            f"{keeps_one[0]}=1: verl deletes the old checkpoint before the new one is whole, and a run that is stopped "
            "in between has none to go on from: set trainer.max_actor_ckpt_to_keep=2"
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
    """Hydra callback of the recipe's config: stops the run in the driver, before Ray starts.

    Hydra turns the exceptions of a callback into warnings, and training would start unchecked; so it leaves by
    ``SystemExit``, whatever happens.
    """

    is_checked = False

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Called by Hydra with the composed config, before it makes the job's copy of it."""
        self.is_checked = True
        self._check_or_leave(config)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Called by Hydra before each job: of a sweep (``-m``), which has no start of a run, with the job's config.

        The job has its own copy of that already, which its trainer adapts.
        """
        if not self.is_checked:
            self._check_or_leave(config)

    def _check_or_leave(self, config: DictConfig) -> None:
        try:
            self._check(config)
        except ValueError as error:
            sys.exit(str(error))
        except Exception as error:
            sys.exit(f"HDPO cannot check this config: {type(error).__name__}: {error}")

    def _check(self, config: DictConfig) -> None:
        # First: another verl may lack the modules that hold the registries, and Hydra would only warn of that.
        version = wrong_verl(config)
        if version:
            sys.exit(version)
        missing = missing_registrations()
        if missing:
            sys.exit(
                f"verl does not know HDPO's {', '.join(missing)}: the verl.plugins entry point of this package was not "
                "loaded. Install it in this environment (pip install .), and leave VERL_USE_EXTERNAL_PLUGINS unset or "
                "let it name 'hdpo'. Without the entry point, set VERL_USE_EXTERNAL_MODULES=recipe.hdpo.plugin, "
                "for Ray's workers too: +ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES="
                "recipe.hdpo.plugin"
            )
        _raise("HDPO cannot run with this config:", [*lost_choices(config), *lost_values(config)])
        hdpo = check_config(config)
        _raise("HDPO cannot start here:", not_ready(config))
        for line in adapt(config, hdpo):
            print(f"HDPO: {line}", flush=True)
        for message in warnings_of(config):
            logger.warning(message)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *_, **__: None
        raise AttributeError(name)
