"""Whether a command's flags did what they say: HDPO is on, and no group's knobs were lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

CONFIG = Path(__file__).parent
DEFAULTS = CONFIG / "hdpo/default.yaml"
# The recipe's groups beside `use` that set knobs.
GROUPS = ("control", "device")
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
    """Groups whose knobs were reset: each takes effect in its turn, in a list too, and ``use=hdpo`` sets every knob.

    For Hydra's callback: Hydra is asked for the order once more.
    """
    loader = _loader()
    if loader is None:
        return
    order = loader.compute_defaults_list(_name(config), _overrides(config), RunMode.RUN).defaults
    chosen = [str(default.config_path).lstrip("/") for default in order]
    before = chosen[: chosen.index("use/hdpo")] if "use/hdpo" in chosen else []
    given, defaults = _given(config), OmegaConf.load(DEFAULTS)
    for group, _, file in (path.partition("/") for path in before):
        path = CONFIG / group / f"{file}.yaml"
        if group not in GROUPS or not path.is_file():
            continue
        for key, wanted in _leaves(OmegaConf.select(OmegaConf.load(path), "hdpo")).items():
            name = f"hdpo.{key}"
            found = OmegaConf.select(config, name)
            if found == OmegaConf.select(defaults, key) != wanted and not _is_given(name, given):
                yield f"{name}={found} is not what +{group}={file} sets, {wanted}: put +use=hdpo before +{group}"


def lost_values(config: DictConfig) -> Iterator[str]:
    """What a config file of the user's own chooses and +use=hdpo on the command line replaces, since it comes later.

    For Hydra's callback: the config is composed once more, without what the command line says of HDPO.
    """
    given, loader = _given(config), _loader()
    if "use" not in given or loader is None:
        return
    rest = [o for o in _overrides(config) if _key(o).partition(".")[0] not in ("use", "hdpo", *GROUPS)]
    try:
        file = loader.load_configuration(_name(config), overrides=rest, run_mode=RunMode.RUN)
    except Exception:  # whatever of the file only HDPO's part of the command line completes
        return
    lost = {}
    for key, verls in VERLS.items():
        asked, found = OmegaConf.select(file, key), OmegaConf.select(config, key)
        if key == "algorithm.adv_estimator" and OmegaConf.select(config, "hdpo.adv_estimator") is not None:
            continue  # HDPO's own runs whatever is asked for, and the start says so
        if asked not in (None, verls, found):
            lost[key] = asked, found
    knobs, defaults = _leaves(OmegaConf.select(config, "hdpo")), _leaves(OmegaConf.load(DEFAULTS))
    for key, asked in _leaves(OmegaConf.select(file, "hdpo")).items():
        if key in defaults and knobs.get(key) == defaults[key] != asked:
            lost[f"hdpo.{key}"] = asked, defaults[key]
    for key, (asked, found) in lost.items():
        if not _is_given(key, given):
            yield (
                f"{key}={_text(asked)} of the config {_name(config)} is lost to {_text(found)}, since +use=hdpo on the "
                "command line comes after the file: put `use: hdpo` into the file's defaults before _self_, or add "
                f"{key}={_text(asked)}"
            )


def _loader() -> ConfigLoader | None:
    hydra = GlobalHydra.instance()
    return hydra.config_loader() if hydra.is_initialized() else None


def _name(config: DictConfig) -> str:
    return str(OmegaConf.select(config, "hydra.job.config_name"))


def _overrides(config: DictConfig) -> list[str]:
    """The command line, with what makes Hydra find its groups."""
    task, hydra = (OmegaConf.select(config, f"hydra.overrides.{kind}") or () for kind in ("task", "hydra"))
    return [*(str(o) for o in hydra if _key(str(o)) == "hydra.searchpath"), *map(str, task)]


def _given(config: DictConfig) -> set[str]:
    return set(map(_key, _overrides(config)))


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _is_given(key: str, given: set[str]) -> bool:
    """Whether the command line sets a key, or a node that holds it."""
    parts = key.split(".")
    return any(".".join(parts[:n]) in given for n in range(2, len(parts) + 1))


def _leaves(node: Any) -> dict[str, Any]:
    """Values by dotted key, lists whole, as they are written: what is interpolated may not be at hand."""
    if not OmegaConf.is_dict(node):
        return {}
    found: dict[str, Any] = {}
    plain: list[tuple[str, Any]] = [("", OmegaConf.to_container(node, resolve=False))]
    while plain:
        key, value = plain.pop()
        if isinstance(value, dict):
            plain += [(f"{key}.{name}".lstrip("."), below) for name, below in reversed(value.items())]
        else:
            found[key] = value
    return found


def _text(value: Any) -> str:
    return "null" if value is None else str(value)
