"""Reads the signs of copying in a response, in the agent-loop worker, which has text, tokens and data row."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from recipe.hdpo.algorithm.feedback import FeedbackPromptBuilder
from recipe.hdpo.algorithm.gate import Signs
from recipe.hdpo.algorithm.leakage import leak_signs, read_phrases, reference_pattern
from recipe.hdpo.algorithm.privileged_prompt import NoPrivilegedText, PrivilegedPromptBuilder, text_at
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.step_process import StepProcess


class LeakReader:
    """The signs of responses to the prompts of one worker.

    Args:
        hdpo: the recipe's knobs.
        tokenizer: the model's.
        builders: of the privileged prompts, by source; they know the text that a row would show. A failed attempt
            and its feedback are none: the model wrote the one itself.

    Raises:
        ValueError: the file of phrases cannot be read.
    """

    def __init__(
        self, hdpo: HDPOConfig, tokenizer: Any, builders: Mapping[str, PrivilegedPromptBuilder | FeedbackPromptBuilder]
    ) -> None:
        options = hdpo.privileged
        self.options, self.tokenizer, self.builders = options, tokenizer, builders
        self.pattern = reference_pattern(read_phrases(Path(options.phrases)) if options.phrases else ())
        self.special = frozenset(tokenizer.all_special_ids)
        self.check = StepProcess(options.step_check, hdpo.reward_timeout) if options.step_check else None
        # All rollouts of a prompt are compared with the same texts.
        self.tokens_of = functools.lru_cache(maxsize=256)(self._tokens)

    async def signs(self, output: AgentLoopOutput, row: Mapping[str, Any], source: str | None = None) -> Signs:
        """Those of one response; of an agent's, of what the model wrote in it.

        Args:
            row: the data row.
            source: what the privileged prompt showed; None for a plain rollout, which is compared with the text of the
                most telling source.
        """
        own = [token for token, is_own in zip(output.response_ids, output.response_mask, strict=True) if is_own]
        text = self.tokenizer.decode(own, skip_special_tokens=True)
        tokens = [token for token in own if token not in self.special]
        shown, worked = self._shown(row, source), text_at(row, self.options.solution_key, join=self.options.join_texts)
        shown_tokens = [] if shown is None else self.tokens_of(shown)
        worked_tokens = None if worked is None else self.tokens_of(worked)
        # Milliseconds for long responses, during which other rollouts go on.
        found = await asyncio.to_thread(leak_signs, text, tokens, shown_tokens, worked_tokens, self.pattern)
        signs = Signs(
            speaks=found.speaks,
            run=None if shown is None else found.run,
            run_share=None if shown is None else found.run_share,
            length_share=found.length_share,
        )
        return signs if self.check is None else await self.check.added_to(signs, text)

    def _shown(self, row: Mapping[str, Any], source: str | None) -> str | None:
        builder = self.builders.get(source or self.options.sources[-1])
        try:
            return builder.shown(row) if isinstance(builder, PrivilegedPromptBuilder) else None
        except NoPrivilegedText:
            return None

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids
