"""What verl's tool agent shows to a chat template, and whether it was stopped in the middle of its work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import hydra.utils
from omegaconf import DictConfig
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, _agent_loop_registry
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
from verl.experimental.agent_loop.tool_parser import ToolParser
from verl.tools.tool_registry import load_all_tools
from verl.utils.import_utils import resolve_config_path


@dataclass(frozen=True)
class ToolAgents:
    """The tool agents of a run: verl's, and classes derived from it.

    Attributes:
        tools: all tools of the run, as verl loads them.
        tool_format: verl's name of the form in which the model writes calls.
        tokenizer: the model's.
    """

    tools: list[Any]
    tool_format: str
    tokenizer: Any

    @classmethod
    def of(cls, config: DictConfig, tokenizer: Any) -> ToolAgents:
        """With the tools that a config names, read as verl's worker reads them (``AgentLoopWorker.__init__``)."""
        turns = config.actor_rollout_ref.rollout.multi_turn
        paths = {name: turns[name] for name in ("tool_config_path", "function_tool_path")}
        tools = load_all_tools(**{name: resolve_config_path(p) if p else None for name, p in paths.items()})
        return cls(tools, turns.format, tokenizer)

    def schemas(self, agent_name: str, row: Mapping[str, Any]) -> list[dict] | None:
        """The tools that an agent shows to the chat template for a data row, chosen as ``ToolAgentLoop.run`` does; None
        for an agent without tools."""
        if not is_derived(agent_name, ToolAgentLoop):
            return None
        by_name = {tool.name: tool for tool in self.tools}
        selection = (row.get("extra_info") or {}).get("tool_selection")
        chosen = [by_name[name] for name in selection if name in by_name] if selection and by_name else self.tools
        return [tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True) for tool in chosen]

    async def calls_in_vain(self, agent_name: str, output: AgentLoopOutput) -> bool:
        """Whether the last turn calls a tool. verl's agent ends so where the tool's answer finds no room in the
        response, or where no more turns are allowed; what the model would have made of the answer is not there."""
        if not is_derived(agent_name, ToolAgentLoop):
            return False
        turn = output.response_ids[_begin_of_last_turn(output.response_mask) :]
        parser = ToolParser.get_tool_parser(self.tool_format, self.tokenizer)
        _, calls = await parser.extract_tool_calls(turn, [tool.tool_schema for tool in self.tools])
        return bool(calls)


def makes_verls_prompts(agent_name: str) -> bool:
    """Whether an agent's prompt is known: that of verl's single-turn or tool agent."""
    return is_derived(agent_name, SingleTurnAgentLoop, ToolAgentLoop)


def is_derived(agent_name: str, *classes: type) -> bool:
    """Whether an agent loop is one of the classes, or derived from one."""
    if agent_name not in _agent_loop_registry:
        return False
    found = hydra.utils.get_object(_agent_loop_registry[agent_name]["_target_"])
    return isinstance(found, type) and issubclass(found, classes)


def _begin_of_last_turn(response_mask: list[int]) -> int:
    return next((t + 1 for t in range(len(response_mask) - 1, -1, -1) if not response_mask[t]), 0)
