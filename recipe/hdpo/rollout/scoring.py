"""What is asked of every rollout: has it a reward, has its response an end, did it see its prompt whole?"""

from __future__ import annotations

import logging
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from recipe.hdpo.algorithm.cliff import UNSCORED, error_text
from recipe.hdpo.algorithm.privileged_prompt import text_at
from recipe.hdpo.config.checks import read_hdpo
from recipe.hdpo.config.lengths import usable_context
from recipe.hdpo.rollout.chat_template import make_token_builder
from recipe.hdpo.rollout.greedy_validation import GreedyValidationWorker
from recipe.hdpo.rollout.outputs import UnscoredRollout, end_token_ids, is_cut_off, usable_reward
from recipe.hdpo.rollout.reward_limit import RewardLimit
from recipe.hdpo.rollout.tool_agents import ToolAgents, makes_verls_prompts

logger = logging.getLogger(__name__)


class ScoringWorker(GreedyValidationWorker):
    """verl's agent-loop worker with the questions above."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reward_limit = RewardLimit(read_hdpo(self.config).reward_timeout)
        self.end_ids = end_token_ids(self.tokenizer, self.model_config.generation_config)
        # The one that verl's agent loops make their prompts with.
        hf_config = self.model_config.hf_config
        self.token_builder = make_token_builder(self.config, self.tokenizer, self.processor, hf_config)
        self.tool_agents = ToolAgents(self.tools, self.rollout_config.multi_turn.format, self.tokenizer)

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict) -> None:
        try:
            await self.reward_limit(super()._compute_score(outputs, kwargs=kwargs))
        except KeyError as missing:
            if missing.args != ("reward_extra_info",) or outputs[-1].reward_score is None:
                raise
            # verl asks for it behind the score, and its own call of a discriminative reward model returns none.
            outputs[-1].extra_fields["reward_extra_info"] = {}

    async def _score(self, outputs: list[AgentLoopOutput], validate: bool, kwargs: dict) -> None:
        """Score a rollout; one without a usable reward is lost. In validation it counts as wrong, and says why."""
        final = outputs[-1]
        try:
            await self._compute_score(outputs, kwargs=kwargs)
            final.reward_score = usable_reward(final.reward_score, final.extra_fields.get("reward_extra_info"))
        except Exception as error:
            if not validate:
                raise
            reason, traceback = (str(error), None) if isinstance(error, UnscoredRollout) else (error_text(error), error)
            logger.warning(
                f"a rollout of validation prompt {kwargs['uid']} counts as wrong: {reason}", exc_info=traceback
            )
            final.reward_score, final.extra_fields["reward_extra_info"] = 0.0, {UNSCORED: reason}

    async def _was_cut_off(self, output: AgentLoopOutput, agent_name: str) -> bool:
        """Whether a limit stopped a response; ``prompt_ids`` are those that it was sampled from."""
        longest, context = self.rollout_config.response_length, usable_context(self.config)
        if context is not None:
            longest = min(longest, context - len(output.prompt_ids))
        if is_cut_off(output, longest, self.end_ids):
            return True
        return await self.tool_agents.calls_in_vain(agent_name, output)

    def _prompt_was_cut(self, prompt_ids: list[int], agent_name: str, kwargs: dict) -> bool:
        """Whether verl cut the plain prompt from the left, to exactly the limit; it logs that and does no more."""
        limit = self.rollout_config.prompt_length
        if len(prompt_ids) < limit:
            return False
        if not makes_verls_prompts(agent_name):
            logger.warning(
                f"a prompt of agent loop {agent_name} has {len(prompt_ids)} tokens, the limit that verl cuts to: it "
                "is taken for no cliff, since only that loop knows whether it is whole"
            )
            return True
        schemas = self.tool_agents.schemas(agent_name, kwargs)
        length = len(self.token_builder.build_initial_tokens(list(kwargs["raw_prompt"]), tools=schemas))
        if length > limit:
            logger.warning(
                f"the prompt of row index {text_at(kwargs, 'extra_info.index')} has {length} tokens, more than "
                f"data.max_prompt_length={limit}: verl cut its beginning off, so the row is taken for no cliff. "
                "data.filter_overlong_prompts=true leaves such rows out"
            )
        return length > limit
