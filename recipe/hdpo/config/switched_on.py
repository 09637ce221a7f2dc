"""Whether a command's flags did what they say: HDPO is on, and no group's knobs were lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

CONFIG = Path(__file__).parent
# What +use=hdpo sets, and verl's own values of it.
VERLS = {
    "algorithm.adv_estimator": "gae",
    "actor_rollout_ref.actor.policy_loss.loss_mode": "vanilla",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class": None,
    "trainer.v1.trainer_mode": "sync",
}


def silent_grpo(config: DictConfig) -> str | None:
    """What to say where a config asks for HDPO and verl would train without it; None where it does not.

    For launches without HDPO's callback, which comes with ``+use=hdpo``.
    """
    node, used = OmegaConf.select(config, "hdpo"), OmegaConf.select(config, "use")
    if isinstance(node, str) or isinstance(used, str):
        flags = [f"+{name}={value}" for name, value in (("hdpo", node), ("use", used)) if isinstance(value, str)]
        return (
            f"{' '.join(flags)} added a text to the config and switched nothing on, since Hydra found no such group: "
            "install this package (pip install .), or add hydra.searchpath=[pkg://recipe.hdpo.config]"
        )
    mode = str(OmegaConf.select(config, "trainer.v1.trainer_mode"))
    if node is None or mode.startswith("hdpo"):
        return None
    return (
        f"the config has hdpo.* keys, but trainer.v1.trainer_mode={mode} is a trainer without HDPO and would ignore "
        "them: add +use=hdpo, which brings +hdpo=default along, or remove them"
    )


def lost_choices(config: DictConfig) -> Iterator[str]:
    """Groups whose knobs were reset: on a command line each takes effect in its turn, and +use=hdpo sets every knob."""
    choices = OmegaConf.select(config, "hydra.runtime.choices") or {}
    given = {str(o).split("=")[0].lstrip("+") for o in OmegaConf.select(config, "hydra.overrides.task") or ()}
    defaults = OmegaConf.load(CONFIG / "hdpo/default.yaml")
    for group in ("control", "device"):
        path = CONFIG / group / f"{choices.get(group)}.yaml"
        chosen = OmegaConf.load(path) if path.is_file() else OmegaConf.create()
        for key in _leaves(OmegaConf.select(chosen, "hdpo", default={})):
            name = f"hdpo.{key}"
            wanted, found = OmegaConf.select(chosen, name), OmegaConf.select(config, name)
            if found == OmegaConf.select(defaults, key) != wanted and name not in given:
                yield f"{name}={found} is not what +{group}={path.stem} sets, {wanted}: put +use=hdpo before +{group}"


def lost_values(config: DictConfig) -> Iterator[str]:
    """What a config file of the user's own chooses and +use=hdpo on the command line replaces, since it comes later.

    For Hydra's callback: the file is composed once more, without the command line.
    """
    overrides = [str(o) for o in OmegaConf.select(config, "hydra.overrides.task") or ()]
    given = {o.split("=")[0].lstrip("+") for o in overrides}
    name = str(OmegaConf.select(config, "hydra.job.config_name"))
    if "use" not in given or not GlobalHydra.instance().is_initialized():
        return
    loader = GlobalHydra.instance().config_loader()
    try:
        file = loader.load_configuration(name, overrides=[], run_mode=RunMode.RUN)
    except Exception:  # whatever of the file only the command line completes
        return
    for key, verls in VERLS.items():
        asked, found = OmegaConf.select(file, key), OmegaConf.select(config, key)
        if key == "algorithm.adv_estimator" and OmegaConf.select(config, "hdpo.adv_estimator") is not None:
            continue  # HDPO's own runs whatever is asked for, and the start says so
        if asked not in (None, verls, found) and key not in given:
            yield (
                f"{key}={asked} of the config {name} is lost to {found}, since +use=hdpo on the command line comes "
                f"after the file: put `use: hdpo` into the file's defaults before _self_, or add {key}={asked}"
            )


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield from _leaves(value, f"{prefix}{key}.") if OmegaConf.is_config(value) else (prefix + key,)
