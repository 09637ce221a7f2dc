"""Feedback as privilege: a failed attempt at the problem, and the text that the reward function returned for it.

No solution is needed: where a verifier says what is wrong (test failures, a broken rule), the model may mend it. The
attempts are a cliff's own rollouts, so the privileged prompt holds nothing that the model did not write or cause.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2

from recipe.hdpo.algorithm.privileged_prompt import Messages, placed, problem_of

SOURCE = "feedback"


@dataclass(frozen=True)
class Attempt:
    """A failed rollout as text, as the reward function read it, and what the reward function said of it."""

    text: str
    feedback: str


@dataclass(frozen=True)
class FeedbackPromptBuilder:
    """Builds the chat messages of a privileged prompt from a failed attempt.

    Attributes:
        template: see :func:`~recipe.hdpo.algorithm.message_template.compile_template`, of the kind FEEDBACK.
        placement: as of :class:`~recipe.hdpo.algorithm.privileged_prompt.PrivilegedPromptBuilder`.
    """

    template: jinja2.Template
    placement: str

    def build(self, messages: Sequence[Mapping[str, str]], attempt: Attempt) -> Messages:
        """The privileged messages. Neither the problem nor the attempt is ever cut.

        Raises:
            ValueError: there is no user message.
        """
        shown = {"problem": problem_of(messages), "attempt": attempt.text, "feedback": attempt.feedback}
        return placed(messages, self.template.render(shown), self.placement)


def first_attempts(attempts: Mapping[int, Attempt], most: int) -> list[Attempt]:
    """Those that are shown: of the rollouts with feedback the first ``most``, in order of their numbers."""
    return [attempts[number] for number in sorted(attempts)[:most]]


def attempt_for(attempts: Sequence[Attempt], rollout: int) -> Attempt:
    """The attempt that the privileged rollout number ``rollout`` is shown: the one of that number, and where there are
    fewer, from the first one again.

    Raises:
        ValueError: there is none.
    """
    if not attempts:
        raise ValueError("no failed attempt has feedback")
    return attempts[rollout % len(attempts)]


def to_json(attempts: Sequence[Attempt]) -> str:
    """Attempts as a text, in which they travel beside a prompt."""
    return json.dumps([[attempt.text, attempt.feedback] for attempt in attempts])


def from_json(text: str) -> list[Attempt]:
    """Inverse of :func:`to_json`."""
    return [Attempt(*pair) for pair in json.loads(text)]
