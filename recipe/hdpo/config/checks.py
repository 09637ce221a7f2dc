"""Validation of a composed config: in the driver before anything starts, and once more in the trainer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.rules import RULES, wrong_verl


def read_hdpo(config: DictConfig) -> HDPOConfig:
    """The recipe's knobs of a composed config.

    Raises:
        ValueError: see :meth:`HDPOConfig.from_mapping`.
    """
    node = OmegaConf.select(config, "hdpo")
    knobs: Any = None if node is None else OmegaConf.to_container(node, resolve=True)
    return HDPOConfig.from_mapping(knobs)


def refusals(config: DictConfig) -> Iterator[str]:
    """Every reason for which this config cannot run, each with its way out."""
    try:
        hdpo = read_hdpo(config)
    except ValueError as error:
        yield str(error)
        return
    for rule in RULES:
        message = rule(config, hdpo)
        if message is not None:
            yield message


def check_config(config: DictConfig) -> HDPOConfig:
    """Validate a composed config and return the recipe's knobs.

    Raises:
        ValueError: lists every refusal.
    """
    found = list(refusals(config))
    if found:
        raise ValueError("HDPO cannot run with this config:\n" + "\n".join(f"  - {message}" for message in found))
    return read_hdpo(config)


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

    Hydra turns the exceptions of a callback into warnings, so it leaves by ``SystemExit``.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Called by Hydra with the composed config."""
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
        try:
            check_config(config)
        except ValueError as error:
            sys.exit(str(error))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *_, **__: None
        raise AttributeError(name)
