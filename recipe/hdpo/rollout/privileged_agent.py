"""The agent loop of a privileged rollout, and what it is told about its group."""

from __future__ import annotations

from dataclasses import dataclass

from verl.experimental.agent_loop.agent_loop import register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from recipe.hdpo.algorithm.cliff import GroupRecord, RolloutGroup
from recipe.hdpo.config.checks import read_hdpo
from recipe.hdpo.config.lengths import max_privileged_prompt_length

PRIVILEGED_AGENT = "hdpo_privileged_agent"


class PrivilegedPromptTooLong(ValueError):
    """The privileged prompt leaves no room for a full response."""


@register(PRIVILEGED_AGENT)
class PrivilegedAgentLoop(SingleTurnAgentLoop):
    """verl's single-turn agent with one difference: a prompt that is too long is refused, never cut."""

    def _cap_text_prompt_length(self, prompt_ids: list[int]) -> list[int]:
        hdpo = read_hdpo(self.config)
        longest = max_privileged_prompt_length(self.config, hdpo)
        if longest is not None and len(prompt_ids) > longest:
            raise PrivilegedPromptTooLong(f"the privileged prompt has {len(prompt_ids)} tokens; the limit is {longest}")
        return prompt_ids


@dataclass
class PrivilegedRollout:
    """What the post-processing of a privileged rollout needs besides verl's arguments.

    Example:
        ``PrivilegedRollout(group, record, plain_messages=[{"role": "user", "content": "2+3=?"}])``

    Attributes:
        group: the cliff's rollouts.
        record: the group's record, which counts this rollout.
        plain_messages: the plain prompt; the reward function gets it, not the privileged one.
    """

    group: RolloutGroup
    record: GroupRecord
    plain_messages: list[dict]
