"""The template of a privileged message: Jinja2 text in a sandbox, judged before anything starts.

Which names it uses is found by parsing it, and what it shows by rendering it with two problems, two solutions and so
on. One that does more than to put its values into a text (loops, calls, sums) is rendered in a process of its own
first, with limits on time, memory and length. template_trial.py run as a program is that process.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import jinja2
from jinja2 import meta, nodes

from recipe.hdpo.algorithm import template_trial
from recipe.hdpo.algorithm.default_templates import SOLUTION, Kind
from recipe.hdpo.algorithm.template_trial import ENVIRONMENT, MEMORY_BYTES, NAMES, tried_here

# Of the processor, for the process in which a template is tried.
CPU_SECONDS = 5
# Seconds on the clock, for a process that gets no processor.
PATIENCE_SECONDS = 300

# A backslash and an n that begin no LaTeX command: a line break that somebody wrote and nobody turned into one.
_LITERAL_LINE_BREAK = re.compile(
    r"\\n(?!(?:abla|atural|e|earrow|eg|eq|ewline|exists|geq|i|leq|mid|oindent|ot|otin|u|warrow)(?![A-Za-z]))"
)
_SINGLE_BRACES = re.compile(rf"(?<!\{{)\{{ *(?:{'|'.join(NAMES)}) *\}}(?!\}})")

# What is as long as its values, and ends.
_PLAIN_NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.CondExpr),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test, nodes.Assign, nodes.Getattr),
    *(nodes.Getitem, nodes.Slice, nodes.Filter),
)
_PLAIN_FILTERS = frozenset({"upper", "lower", "trim", "capitalize", "title", "first", "last", "length", "string"})


def compile_template(template: str | None, placement: str, kind: Kind = SOLUTION) -> jinja2.Template:
    """The template of the privileged message.

    Args:
        template: Jinja2 text with the names of its kind; ``@path`` reads it from a file; None takes the default of the
            placement.
        placement: "user" or "system".
        kind: what it is for: solutions and answers, or feedback.

    Raises:
        ValueError: the file cannot be read, the syntax is wrong, a name or filter is unknown, rendering fails or goes
            over a limit, nothing privileged is shown, or, for placement "user", nothing of the
            problem; or the text would show a literal ``\\n``.
    """
    key, may_use = kind.key, _may_use(kind)
    text = kind.defaults[placement] if template is None else template
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ValueError(f"{key}={template}: the file cannot be read ({error})") from error
    try:
        tree = ENVIRONMENT.parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"{key}, line {error.lineno}: {error}. {may_use}") from error
    if any(True for _ in meta.find_referenced_templates(tree)):
        raise ValueError(f"{key} includes or imports another template: write all of it into one file, @FILE")
    # Before anything else: to look for names, Jinja computes what is constant.
    tried = tried_here(text) if _is_plain(tree) else _tried_elsewhere(text, CPU_SECONDS, MEMORY_BYTES)
    if isinstance(tried, str):
        raise ValueError(f"{key}: {tried}. {may_use}")
    _check_names(kind, tree, text, placement)
    plain, *others = tried
    shown = {name for name, other in zip(NAMES, others, strict=True) if other != plain}
    _check_shown(kind, shown, "the parts that name them are never rendered", placement, text)
    if _LITERAL_LINE_BREAK.search(plain):
        example = f"""$'{key}="{{{{ problem }}}}\\n{{{{ {kind.shows[0]} }}}}"'"""
        raise ValueError(
            f"{key}={text} shows the teacher a backslash and an n, not a line break: Hydra does not unescape \\n in "
            f"an override. In bash write {example}, with the dollar sign, or put the template into a file, @FILE"
        )
    return ENVIRONMENT.from_string(text)


def _check_names(kind: Kind, tree: nodes.Template, text: str, placement: str) -> None:
    used = meta.find_undeclared_variables(tree)
    filters = {node.name for node in tree.find_all(nodes.Filter)} - ENVIRONMENT.filters.keys()
    tests = {node.name for node in tree.find_all(nodes.Test)} - ENVIRONMENT.tests.keys()
    unknown = sorted(used - set(kind.names)) + [f"the filter {name}" for name in sorted(filters)]
    if unknown := unknown + [f"the test {name}" for name in sorted(tests)]:
        raise ValueError(f"{kind.key} uses {', '.join(unknown)}, which nothing defines. {_may_use(kind)}")
    _check_shown(kind, used, "it does not name them", placement, text)


def _check_shown(kind: Kind, shown: set[str], why: str, placement: str, text: str) -> None:
    """Refuse a template that leaves out what it must show."""
    if _SINGLE_BRACES.search(text):
        why += ", and a name in single braces is only a word"
    if not shown & set(kind.shows):
        neither = " nor ".join(f"{{{{ {name} }}}}" for name in kind.shows)
        says = "neither" if len(kind.shows) > 1 else "no"
        raise ValueError(f"{kind.key} shows {says} {neither} ({why}): nothing would be privileged")
    if placement == "user" and "problem" not in shown:
        raise ValueError(f"{kind.key} replaces the user's message, so it must use {{{{ problem }}}} ({why})")


def _may_use(kind: Kind) -> str:
    *names, last = (f"{{{{ {name} }}}}" for name in kind.names)
    return f"It may use {', '.join(names)} and {last}"


def _is_plain(tree: nodes.Template) -> bool:
    found = list(tree.find_all(nodes.Node))
    filters = [node for node in found if isinstance(node, nodes.Filter)]
    return all(isinstance(node, _PLAIN_NODES) for node in found) and all(
        node.name in _PLAIN_FILTERS and not node.args and not node.kwargs for node in filters
    )


@functools.lru_cache
def _tried_elsewhere(text: str, cpu_seconds: int, memory_bytes: int) -> list[str] | str:
    """The same in a process with limits."""
    command = [sys.executable, template_trial.__file__, str(cpu_seconds), str(memory_bytes)]
    try:
        done = subprocess.run(command, input=json.dumps(text), capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"rendering it does not end within {PATIENCE_SECONDS} s"
    if done.returncode < 0:
        return f"rendering it does not end within {cpu_seconds} s of processor time"
    if done.returncode > 0:
        return f"rendering it ends its process: {done.stderr.strip()[-500:]}"
    return json.loads(done.stdout)
