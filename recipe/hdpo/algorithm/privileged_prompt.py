"""Privileged prompts: the plain prompt x, re-issued with its ground truth y* (x + y*).

The template is Jinja2 in a sandbox. Problem and solution are values of the template, never part of it, so braces,
backslashes and LaTeX in them survive as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

Messages = list[dict[str, str]]

USER_TEMPLATE = """{{ problem }}

A reference solution is given below. Study it, then solve the problem yourself, step by step, in the same way \
and with the same answer format as if you had not seen it. Do not mention the reference.

{{ solution }}"""

SYSTEM_TEMPLATE = """The user is going to ask a problem. A reference solution is given below. Study it, then solve the \
problem yourself, step by step, in the same way and with the same answer format as if you had not seen it. \
Do not mention the reference.

{{ solution }}"""

DEFAULT_TEMPLATES = {"user": USER_TEMPLATE, "system": SYSTEM_TEMPLATE}

# A backslash and an n that begin no LaTeX command: a line break that somebody wrote and nobody turned into one.
_LITERAL_LINE_BREAK = re.compile(
    r"\\n(?!(?:abla|atural|e|earrow|eg|eq|ewline|exists|geq|i|leq|mid|oindent|ot|otin|u|warrow)(?![A-Za-z]))"
)

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
)


class NoPrivilegedText(LookupError):
    """The row has no solution (or answer) to build a privileged prompt from."""


def compile_template(template: str | None, placement: str) -> jinja2.Template:
    """The template of the privileged message.

    Args:
        template: Jinja2 text with ``problem``, ``solution`` and ``answer``; ``@path`` reads it from a file;
            None takes the default of the placement.
        placement: "user" or "system".

    Raises:
        ValueError: the file cannot be read, the syntax is wrong, a name is unknown, the text of the solution is
            not used, or, for placement "user", the problem is not; or the text would show a literal ``\\n``.
    """
    where = "hdpo.privileged.template"
    text = DEFAULT_TEMPLATES[placement] if template is None else template
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"{where}={template}: the file cannot be read ({error})") from error
    try:
        compiled = _ENVIRONMENT.from_string(text)
        trial = compiled.render(problem="<problem>", solution="<solution>", answer="<answer>")
    except (jinja2.TemplateError, jinja2.exceptions.SecurityError) as error:
        raise ValueError(
            f"{where}: {error}. It may use {{{{ problem }}}}, {{{{ solution }}}} and {{{{ answer }}}}"
        ) from error
    if "<solution>" not in trial and "<answer>" not in trial:
        raise ValueError(f"{where} uses neither {{{{ solution }}}} nor {{{{ answer }}}}: nothing would be privileged")
    if placement == "user" and "<problem>" not in trial:
        raise ValueError(f"{where} replaces the user's message, so it must use {{{{ problem }}}}")
    if _LITERAL_LINE_BREAK.search(trial):
        example = f"""$'{where}="{{{{ problem }}}}\\n{{{{ solution }}}}"'"""
        raise ValueError(
            f"{where}={text} shows the teacher a backslash and an n, not a line break: Hydra does not unescape \\n in "
            f"an override. In bash write {example}, with the dollar sign, or put the template into a file, @FILE"
        )
    return compiled


@dataclass(frozen=True)
class PrivilegedPromptBuilder:
    """Builds the chat messages of a privileged prompt from a data row.

    Attributes:
        template: see :func:`compile_template`.
        placement: "user" replaces the last user message; "system" adds to (or makes) the system message.
        source: "solution" gives the worked solution to the template, "answer" gives the final answer alone.
        solution_key, answer_key: dotted paths into the data row.
    """

    template: jinja2.Template
    placement: str
    source: str
    solution_key: str
    answer_key: str

    def build(self, messages: Sequence[Mapping[str, str]], row: Mapping[str, Any]) -> Messages:
        """The privileged messages. The problem's own text is never cut.

        Args:
            messages: the plain prompt, chat messages with text content and at least one user message.
            row: the data row, e.g. with ``extra_info.solution`` and ``reward_model.ground_truth``.

        Raises:
            NoPrivilegedText: the row has no text at the key that ``source`` needs.
            ValueError: there is no user message.
        """
        plain = [dict(message) for message in messages]
        last_user = max((i for i, message in enumerate(plain) if message["role"] == "user"), default=None)
        if last_user is None:
            raise ValueError("a privileged prompt needs a user message; the row's prompt has none")
        answer = text_at(row, self.answer_key)
        solution = answer if self.source == "answer" else text_at(row, self.solution_key)
        if not solution:
            raise NoPrivilegedText(self.answer_key if self.source == "answer" else self.solution_key)
        # With source "answer" the worked solution must not leak through the template.
        text = self.template.render(problem=plain[last_user]["content"], solution=solution, answer=answer or "")
        if self.placement == "user":
            plain[last_user]["content"] = text
        elif plain[0]["role"] == "system":
            plain[0]["content"] = f"{plain[0]['content']}\n\n{text}"
        else:
            plain.insert(0, {"role": "system", "content": text})
        return plain


def text_at(row: Mapping[str, Any], dotted_key: str) -> str | None:
    """The text at a dotted path of a row; None where it is missing or blank."""
    value: Any = row
    for part in dotted_key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    if value is None or not str(value).strip():
        return None
    return str(value)


def prompt_id(messages: Sequence[Mapping[str, Any]], data_source: str = "") -> str:
    """An id of a problem that stays the same over epochs and restarts: a hash of what the student reads."""
    text = json.dumps([data_source, [[m["role"], m["content"]] for m in messages]], ensure_ascii=True)
    return sha256(text.encode()).hexdigest()[:16]
