"""The agent loop of a privileged rollout, and what it is told about its group.

It is the agent loop that made the plain rollouts, tools and turns included, with three differences: a prompt that is
too long is refused, never cut; the budget of tokens for all turns is counted from the privileged prompt on; and the
prompt may be made with other options of the chat template. Later turns are made with the plain ones and behind the
plain prompt, since the student reads them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import hydra.utils
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, _agent_loop_registry
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop

from recipe.hdpo.algorithm.cliff import GroupRecord, RolloutGroup
from recipe.hdpo.config.checks import read_hdpo
from recipe.hdpo.config.lengths import max_privileged_prompt_length
from recipe.hdpo.rollout.chat_template import privileged_data, token_builder_of

# Name of an argument of a privileged rollout: its PrivilegedRollout.
MARK = "hdpo_privileged_rollout"
PREFIX = "hdpo_privileged_"


class PrivilegedPromptTooLong(ValueError):
    """The privileged prompt leaves no room for a full response."""


@dataclass
class PrivilegedRollout:
    """What the post-processing of a privileged rollout needs besides verl's arguments.

    Example:
        ``PrivilegedRollout(group, record, plain_messages=[{"role": "user", "content": "2+3=?"}], source="solution")``

    Attributes:
        group: the cliff's rollouts.
        record: the group's record, which counts this rollout.
        plain_messages: the plain prompt; the reward function and tools get it, not the privileged one.
        source: of what the privileged prompt shows.
        solved_and_kept: whether it came out correct and is used; known once it was scored.
    """

    group: RolloutGroup
    record: GroupRecord
    plain_messages: list[dict]
    source: str
    solved_and_kept: bool = False


def privileged_agent(agent_name: str) -> str:
    """The name by which verl's worker makes the privileged twin of an agent loop.

    Raises:
        KeyError: verl knows no such loop.
    """
    name, plain = PREFIX + agent_name, OmegaConf.create(_agent_loop_registry[agent_name])
    twin = {"_target_": f"{__name__}.make_privileged_loop", "hdpo_loop": plain["_target_"]}
    # A loop from the user's file of agent loops may have arguments of its own.
    _agent_loop_registry[name] = OmegaConf.merge(plain, twin)
    return name


def make_privileged_loop(hdpo_loop: str, server_manager: Any, trainer_config: Any, **arguments: Any) -> Any:
    """The twin, for one rollout; called by Hydra with what the plain loop's class would be called with.

    Args:
        hdpo_loop: the plain loop's class, dotted.

    Raises:
        ValueError: what makes the plain loop is no class.
    """
    plain = hydra.utils.get_object(hdpo_loop)
    if not isinstance(plain, type):
        raise ValueError(f"the agent loop {hdpo_loop} is a {type(plain).__name__}: privileged rollouts need a class")
    config = trainer_config.config
    hdpo = read_hdpo(config)
    longest = max_privileged_prompt_length(config, hdpo)
    server = BudgetedServer(server_manager, longest, config.actor_rollout_ref.rollout.response_length)
    data = arguments["data_config"].config
    own = arguments | {"data_config": DictConfigWrap(privileged_data(data, hdpo))}
    loop = _privileged_class(plain)(server_manager=server, trainer_config=trainer_config, **own)
    if hdpo.privileged.chat_template_kwargs:
        names = ("tokenizer", "processor", "hf_model_type")
        loop.turn_builder = token_builder_of(data, *(arguments.get(name) for name in names))
    return loop


class BudgetedServer:
    """verl's client of the rollout servers, for one privileged rollout.

    vLLM's server would derive how many tokens a turn may have from the longest plain prompt.

    Args:
        server: verl's client.
        longest_prompt: in tokens; None for no limit.
        response_length: tokens that all turns, those of tools included, may have together.
    """

    def __init__(self, server: Any, longest_prompt: int | None, response_length: int) -> None:
        self.server, self.longest_prompt, self.response_length = server, longest_prompt, response_length
        self.prompt_length: int | None = None

    async def generate(self, *args: Any, prompt_ids: list[int], sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        """One turn, with the tokens that earlier ones have left.

        Raises:
            PrivilegedPromptTooLong: the first turn's prompt.
        """
        if self.prompt_length is None:
            if self.longest_prompt is not None and len(prompt_ids) > self.longest_prompt:
                raise PrivilegedPromptTooLong(
                    f"the privileged prompt has {len(prompt_ids)} tokens; the limit is {self.longest_prompt}"
                )
            self.prompt_length = len(prompt_ids)
        left = self.response_length - (len(prompt_ids) - self.prompt_length)
        limits = ("max_tokens", "max_new_tokens")
        # A loop of the user's own may ask for less.
        asked = [sampling_params[key] for key in limits if sampling_params.get(key) is not None]
        params = {key: value for key, value in sampling_params.items() if key not in limits}
        # 1 is the least that vLLM takes, and what verl's server makes of less.
        params["max_tokens"] = max(1, min([left, *asked]))
        return await self.server.generate(*args, prompt_ids=prompt_ids, sampling_params=params, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)


class _Privileged:
    """What the twin's class overrides.

    Attributes:
        turn_builder: verl's builder of token ids for what joins the response; None: the one of the prompt.
        privileged: what the rollout is told about its group.
        privileged_length: messages of the privileged prompt.
    """

    turn_builder: Any = None
    privileged: PrivilegedRollout
    privileged_length: int
    # verl's, of the prompt.
    continuous_token_builder: Any

    def _cap_text_prompt_length(self, prompt_ids: list[int]) -> list[int]:
        return prompt_ids  # the server refuses one that is too long

    async def ct_merge_context_msg(self, *args: Any, **kwargs: Any) -> Any:
        # One loop makes one rollout, one turn after the other.
        own = self.continuous_token_builder
        self.continuous_token_builder = self.turn_builder or own
        try:
            return await super().ct_merge_context_msg(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.continuous_token_builder = own

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        # The plain loop sees what it sees for a plain rollout.
        self.privileged = kwargs.pop(MARK)
        self.privileged_length = len(kwargs["raw_prompt"])
        return await super().run(sampling_params, **kwargs)  # type: ignore[misc]


class _PrivilegedToolAgent(_Privileged):
    """What the twin of verl's tool agent, or of a class derived from it, overrides beside that."""

    async def _handle_pending_state(self, agent_data: Any, *args: Any, **kwargs: Any) -> Any:
        state = await super()._handle_pending_state(agent_data, *args, **kwargs)  # type: ignore[misc]
        # The prompt has its token ids. From here on the conversation is read by tools, whose answers the student reads.
        said_since = agent_data.messages[self.privileged_length :]
        agent_data.messages = [*self.privileged.plain_messages, *said_since]
        return state


@functools.cache
def _privileged_class(plain: type) -> type:
    own = _PrivilegedToolAgent if issubclass(plain, ToolAgentLoop) else _Privileged
    return type(f"Privileged{plain.__name__}", (own, plain), {})
