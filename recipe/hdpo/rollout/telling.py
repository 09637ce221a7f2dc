"""What a cliff's record tells people of its privileged rollouts, where ``trainer.rollout_data_dir`` is set.

The trainer writes it down (``tracking/group_lines.py``), and ``recipe.hdpo.cliffs`` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.algorithm.prompt_marks import marked
from recipe.hdpo.tracking.token_text import short

# Why a privileged rollout is not used.
EMPTY, FAILED, TRUNCATED = "the model wrote nothing", "failed", "truncated"
# Of the text of a rollout that is not used, which travels in its record.
ATTEMPT_CHARS = 8000
# Of a problem, by which people know a cliff in a list.
PROBLEM_CHARS = 300


class Telling:
    """Fills ``privileged`` and ``told`` of a record.

    Args:
        tokenizer: the model's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def shown(self, source: str, text: str, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Of a cliff: its problem, and what its privileged prompt shows, as text and as token ids.

        Args:
            source: ``hdpo.privileged.source``.
            text: the privileged text; empty where the plain prompt is shown.
            messages: of the plain prompt.
        """
        ids = self.tokenizer(text, add_special_tokens=False).input_ids if text else []
        turns = [message["content"] for message in messages if message["role"] == "user"]
        # A title alone, so that a prompt of another form has none and is no error.
        asked = turns[-1] if turns and isinstance(turns[-1], str) else ""
        return {"source": source, "asked": short(asked, PROBLEM_CHARS), "shown": text, "shown_ids": list(ids)}

    def attempt(
        self,
        record: GroupRecord,
        key: str,
        teacher_prompt_ids: list[int],
        output: AgentLoopOutput,
        *,
        solved: bool,
        cut_off: bool,
        reason: str,
    ) -> None:
        """Add a scored privileged rollout to its cliff's record, and with the first one the prompt.

        Args:
            key: its trajectory's id.
            output: ``prompt_ids`` are those of the plain prompt.
            reason: why it is not kept; empty for one that is. A kept one's text is written with its tokens.
        """
        if "prompt" not in record.privileged:
            plain, privileged = map(self.tokenizer.decode, (output.prompt_ids, teacher_prompt_ids))
            record.privileged["plain_prompt"] = plain
            # The begin and end of the privileged part, as parts: (kind, text).
            parts = marked(plain, privileged, record.privileged.get("shown", ""))
            record.privileged["prompt"] = [list(part) for part in parts]
        told = {
            "key": key,
            "reward": output.reward_score,
            "solved": solved,
            "kept": not reason,
            "reason_not_kept": reason,
            "truncated": cut_off,
            "tokens": len(output.response_ids),
        }
        if reason:
            told["text"] = short(self.tokenizer.decode(output.response_ids), ATTEMPT_CHARS)
        record.told.append(told)
