"""Privileged prompts: the plain prompt x, re-issued with its ground truth y* (x + y*).

Problem and solution are values of the template (:mod:`~recipe.hdpo.algorithm.message_template`), never part of it, so
braces, backslashes and LaTeX in them survive as they are.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

import jinja2

from recipe.hdpo.algorithm.solution_prefix import prefix_share, solution_prefix

Messages = list[dict[str, str]]

# Letters, marks and symbols of Unicode that show nothing: fillers, a joiner, variation selectors, empty Braille.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10))))


class NoPrivilegedText(LookupError):
    """The row has no solution (or answer) to build a privileged prompt from."""


@dataclass(frozen=True)
class PrivilegedPromptBuilder:
    """Builds the chat messages of a privileged prompt from a data row.

    Attributes:
        template: see :func:`~recipe.hdpo.algorithm.message_template.compile_template`.
        placement: "user" replaces the last user message; "system" adds to (or makes) the system message.
        source: "solution" gives the worked solution to the template, "answer" gives the final answer alone,
            "prefix:SHARE" the first part of the worked solution
            (:func:`~recipe.hdpo.algorithm.solution_prefix.solution_prefix`).
        solution_key, answer_key: dotted paths into the data row.
        join_texts: whether a list of texts is one text, joined by line breaks.
    """

    template: jinja2.Template
    placement: str
    source: str
    solution_key: str
    answer_key: str
    join_texts: bool = False

    def build(self, messages: Sequence[Mapping[str, str]], row: Mapping[str, Any]) -> Messages:
        """The privileged messages. The problem's own text is never cut.

        Args:
            messages: the plain prompt, chat messages with text content and at least one user message.
            row: the data row, e.g. with ``extra_info.solution`` and ``reward_model.ground_truth``.

        Raises:
            NoPrivilegedText: the row has no text at the key that ``source`` needs, or one of a single piece of which no
                prefix can be shown, or no text but something else at that of an answer which the template shows.
            ValueError: there is no user message.
        """
        problem = problem_of(messages)
        answer = text_at(row, self.answer_key, join=self.join_texts)
        # With source "answer" the worked solution must not leak through the template.
        shown = {"problem": problem, "solution": self.shown(row)}
        text = self.template.render(shown, answer=answer or "")
        # Where the template shows an answer, and something other than a text stands there.
        if _is_no_text(row, self.answer_key, answer) and self.template.render(shown, answer="<answer>") != text:
            raise NoPrivilegedText(f"{self.answer_key}, where {why_no_text(row, self.answer_key)} stands")
        return placed(messages, text, self.placement)

    def shown(self, row: Mapping[str, Any]) -> str:
        """The text that a row's privileged prompt shows as its solution: by ``source`` all of it, or a part.

        Raises:
            NoPrivilegedText: there is none.
        """
        key = self.answer_key if self.source == "answer" else self.solution_key
        text = text_at(row, key, join=self.join_texts)
        if text is None:
            raise NoPrivilegedText(f"{key}, where {why_no_text(row, key)} stands")
        share = prefix_share(self.source)
        prefix = text if share is None else solution_prefix(text, share)
        if prefix is None:
            raise NoPrivilegedText(f"{key}, where a text of one line and one sentence stands, which has no first part")
        return prefix


def problem_of(messages: Sequence[Mapping[str, str]]) -> str:
    """The text of the last user message.

    Raises:
        ValueError: there is none.
    """
    return messages[_last_user(messages)]["content"]


def placed(messages: Sequence[Mapping[str, str]], text: str, placement: str) -> Messages:
    """The messages with a privileged text in the place of the last user message, or added to the system message."""
    plain = [dict(message) for message in messages]
    if placement == "user":
        plain[_last_user(plain)]["content"] = text
    elif plain[0]["role"] == "system":
        plain[0]["content"] = f"{plain[0]['content']}\n\n{text}"
    else:
        plain.insert(0, {"role": "system", "content": text})
    return plain


def _last_user(messages: Sequence[Mapping[str, str]]) -> int:
    last_user = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last_user is None:
        raise ValueError("a privileged prompt needs a user message; the row's prompt has none")
    return last_user


def text_at(row: Mapping[str, Any], dotted_key: str, *, join: bool = False) -> str | None:
    """The text at a dotted path of a row; None where :func:`why_no_text` has a reason.

    A finite number is the text that it is written as.

    Args:
        join: whether a list of texts is one text, joined by line breaks.
    """
    value = _value_at(row, dotted_key)
    if join and isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        value = "\n".join(value)
    if isinstance(value, str):
        return value if _shows(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        # Python itself writes no int of more than 4,300 digits.
        return str(Decimal(value))
    return str(value) if isinstance(value, float) and math.isfinite(value) else None


def why_no_text(row: Mapping[str, Any], dotted_key: str) -> str:
    """What stands at a path at which :func:`text_at` finds none: nothing, a blank text, or a value of another kind."""
    value = _value_at(row, dotted_key)
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return "a blank text"
    if isinstance(value, float):
        return str(value)
    texts = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
    return "a list of texts" if texts else "an empty list" if value == [] else f"a {type(value).__name__}"


def _value_at(row: Mapping[str, Any], dotted_key: str) -> Any:
    value: Any = row
    for part in dotted_key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    # Values and arrays of numpy are Python's underneath.
    return value.tolist() if hasattr(value, "tolist") else value


def _is_no_text(row: Mapping[str, Any], dotted_key: str, found: str | None) -> bool:
    return found is None and not isinstance(_value_at(row, dotted_key), str | None)


def _shows(text: str) -> bool:
    """Whether a reader sees anything: not in white space, controls such as NUL, or zero-width marks alone."""
    return not all(unicodedata.category(c) in ("Zs", "Zl", "Zp", "Cc", "Cf") or c in _BLANK for c in text)


def prompt_id(messages: Sequence[Mapping[str, Any]], data_source: str = "") -> str:
    """An id of a problem that stays the same over epochs and restarts: a hash of what the student reads."""
    text = json.dumps([data_source, [[m["role"], m["content"]] for m in messages]], ensure_ascii=True)
    return sha256(text.encode()).hexdigest()[:16]
