"""Rules (as in ``rules.py``) on agent loops: the one that runs has to be known to verl, and its calls to a parser."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import MODEL, ROLLOUT, Rule, select

AGENT, LOOPS = f"{ROLLOUT}.agent.default_agent_loop", f"{ROLLOUT}.agent.agent_loop_config_path"
TURNS = f"{ROLLOUT}.multi_turn"
SINGLE_TURN, TOOL = "single_turn_agent", "tool_agent"


def unknown_agents(config: DictConfig, names: Iterable[str]) -> str | None:
    """Which of the names verl's worker would not find, with those that it would; None for none."""
    unknown = sorted(set(names) - {SINGLE_TURN, TOOL})
    if not unknown:
        return None
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.utils.import_utils import resolve_config_path

    _import_users_modules(config)
    path = select(config, LOOPS)
    loops: Any = [] if path is None else OmegaConf.load(resolve_config_path(path))
    known = {*_agent_loop_registry, *(loop.name for loop in loops)}
    unknown = [name for name in unknown if name not in known]
    if not unknown:
        return None
    return (
        f"{', '.join(unknown)}, and verl knows the agent loops {', '.join(sorted(known))} only: add it to a file of "
        f"agent loops ({LOOPS}), or to a module that registers it ({MODEL}.external_lib)"
    )


def _import_users_modules(config: DictConfig) -> None:
    """As verl's agent-loop worker does before it looks for a loop or a parser, which these modules may register."""
    from verl.utils.import_utils import import_external_libs

    modules = select(config, f"{MODEL}.external_lib")
    import_external_libs(OmegaConf.to_object(modules) if OmegaConf.is_list(modules) else modules)


def unknown_default_agent(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    problem = unknown_agents(config, [select(config, AGENT, SINGLE_TURN)])
    return None if problem is None else f"{AGENT} is {problem}"


def agents_without_class(config: DictConfig, names: Iterable[str]) -> str | None:
    """Which of the names the user's file has a function for, where privileged rollouts need a class; None for none."""
    from verl.utils.import_utils import resolve_config_path

    path = select(config, LOOPS)
    if path is None:
        return None
    wanted, loops = set(names), OmegaConf.load(resolve_config_path(path))
    for loop in cast(ListConfig, loops):
        made_by = None if loop.name not in wanted else _imported(loop.get("_target_", ""))
        if made_by is not None and not isinstance(made_by, type):
            return (
                f"{loop.name}, which {loop['_target_']} makes, a {type(made_by).__name__}: privileged rollouts need "
                f"a class to derive theirs from, so name that class in {path}, with its arguments beside _target_"
            )
    return None


def _imported(target: str) -> Any:
    """What a name stands for; None where it cannot be imported here, which verl's worker says."""
    import hydra.utils

    try:
        return hydra.utils.get_object(target)
    except Exception:
        return None


def default_agent_without_class(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if hdpo.privileged.n == 0:
        return None
    problem = agents_without_class(config, [select(config, AGENT, SINGLE_TURN)])
    return None if problem is None else f"{AGENT} is {problem}"


def unknown_tool_format(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    if select(config, AGENT) != TOOL:
        return None
    from verl.experimental.agent_loop.tool_parser import ToolParser

    _import_users_modules(config)
    found = select(config, f"{TURNS}.format")
    if found in ToolParser._registry:
        return None
    known = ", ".join(sorted(ToolParser._registry))
    return f"{TURNS}.format={found} is no form of tool calls that verl parses: use the model's among {known}"


def idle_multi_turn(config: DictConfig) -> str | None:
    """What to say of a switch that verl's V1 trainer does not read; None where the agent has turns anyway."""
    if not select(config, f"{TURNS}.enable", False) or select(config, AGENT, SINGLE_TURN) != SINGLE_TURN:
        return None
    return (
        f"{TURNS}.enable=true changes nothing by itself: rows without a column agent_name are rolled out by "
        f"{AGENT}={SINGLE_TURN}, in one turn without tools: set that to {TOOL}, or to a loop of your own"
    )


AGENT_RULES: tuple[Rule, ...] = (unknown_default_agent, default_agent_without_class, unknown_tool_format)
