"""The template of a privileged message: Jinja2 text in a sandbox, judged before anything starts.

Which names it uses is found by parsing it, and what it shows by rendering it with two problems, two solutions and two
answers. One that does more than to put its values into a text (loops, calls, sums) is rendered in a process of its own
first, with limits on time, memory and length. This file run as a program is that process.
"""

from __future__ import annotations

import functools
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

USER_TEMPLATE = """{{ problem }}

A reference solution is given below. Study it, then solve the problem yourself, step by step, in the same way \
and with the same answer format as if you had not seen it. Do not mention the reference.

{{ solution }}"""

SYSTEM_TEMPLATE = """The user is going to ask a problem. A reference solution is given below. Study it, then solve the \
problem yourself, step by step, in the same way and with the same answer format as if you had not seen it. \
Do not mention the reference.

{{ solution }}"""

DEFAULT_TEMPLATES = {"user": USER_TEMPLATE, "system": SYSTEM_TEMPLATE}
KEY = "hdpo.privileged.template"
NAMES = ("problem", "solution", "answer")

# Limits of the process in which a template is tried: its processor time, its memory, and each text that it makes.
CPU_SECONDS = 5
MEMORY_BYTES = 1 << 30
MAX_CHARS = 1_000_000
# Seconds on the clock, for a process that gets no processor.
PATIENCE_SECONDS = 300

# A backslash and an n that begin no LaTeX command: a line break that somebody wrote and nobody turned into one.
_LITERAL_LINE_BREAK = re.compile(
    r"\\n(?!(?:abla|atural|e|earrow|eg|eq|ewline|exists|geq|i|leq|mid|oindent|ot|otin|u|warrow)(?![A-Za-z]))"
)
_SINGLE_BRACES = re.compile(r"(?<!\{)\{ *(?:problem|solution|answer) *\}(?!\})")

# What is as long as its values, and ends.
_PLAIN_NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.CondExpr),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test, nodes.Assign, nodes.Getattr),
    *(nodes.Getitem, nodes.Slice, nodes.Filter),
)
_PLAIN_FILTERS = frozenset({"upper", "lower", "trim", "capitalize", "title", "first", "last", "length", "string"})

ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
)
del ENVIRONMENT.globals["lipsum"]  # another text in every process

# The forms that solutions often have, and as long as a short one of them.
_PROBE = {
    "problem": "Tom has 3 pens & finds 4.\nHow many has he?",
    "solution": "He finds $4$, so it is 3 + 4 = 7.\n" * 40 + "\\boxed{7}\n#### 7",
    "answer": "7",
}
# Every letter and digit becomes another one, so what is shown differs wherever it is cut, and nothing of its length.
_OTHERS = str.maketrans("abcdefghijklmnopqrstuvwxyzBT0123456789", "bcdefghijklmnopqrstuvwxyzaCU1234567890")


def compile_template(template: str | None, placement: str) -> jinja2.Template:
    """The template of the privileged message.

    Args:
        template: Jinja2 text with ``problem``, ``solution`` and ``answer``; ``@path`` reads it from a file;
            None takes the default of the placement.
        placement: "user" or "system".

    Raises:
        ValueError: the file cannot be read, the syntax is wrong, a name or filter is unknown, rendering fails or goes
            over a limit, nothing of the solution or the answer is shown, or, for placement "user", nothing of the
            problem; or the text would show a literal ``\\n``.
    """
    text = DEFAULT_TEMPLATES[placement] if template is None else template
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ValueError(f"{KEY}={template}: the file cannot be read ({error})") from error
    try:
        tree = ENVIRONMENT.parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"{KEY}, line {error.lineno}: {error}. {_may_use()}") from error
    if any(True for _ in meta.find_referenced_templates(tree)):
        raise ValueError(f"{KEY} includes or imports another template: write all of it into one file, @FILE")
    # Before anything else: to look for names, Jinja computes what is constant.
    tried = _tried_here(text) if _is_plain(tree) else _tried_elsewhere(text, CPU_SECONDS, MEMORY_BYTES)
    if isinstance(tried, str):
        raise ValueError(f"{KEY}: {tried}. {_may_use()}")
    _check_names(tree, text, placement)
    plain, *others = tried
    shown = {name for name, other in zip(NAMES, others, strict=True) if other != plain}
    _check_shown(shown, "the parts that name them are never rendered", placement, text)
    if _LITERAL_LINE_BREAK.search(plain):
        example = f"""$'{KEY}="{{{{ problem }}}}\\n{{{{ solution }}}}"'"""
        raise ValueError(
            f"{KEY}={text} shows the teacher a backslash and an n, not a line break: Hydra does not unescape \\n in "
            f"an override. In bash write {example}, with the dollar sign, or put the template into a file, @FILE"
        )
    return ENVIRONMENT.from_string(text)


def _check_names(tree: nodes.Template, text: str, placement: str) -> None:
    used = meta.find_undeclared_variables(tree)
    filters = {node.name for node in tree.find_all(nodes.Filter)} - ENVIRONMENT.filters.keys()
    tests = {node.name for node in tree.find_all(nodes.Test)} - ENVIRONMENT.tests.keys()
    unknown = sorted(used - set(NAMES)) + [f"the filter {name}" for name in sorted(filters)]
    if unknown := unknown + [f"the test {name}" for name in sorted(tests)]:
        raise ValueError(f"{KEY} uses {', '.join(unknown)}, which nothing defines. {_may_use()}")
    _check_shown(used, "it does not name them", placement, text)


def _check_shown(shown: set[str], why: str, placement: str, text: str) -> None:
    """Refuse a template that leaves out what it must show."""
    if _SINGLE_BRACES.search(text):
        why += ", and a name in single braces is only a word"
    if not shown & {"solution", "answer"}:
        raise ValueError(
            f"{KEY} shows neither {{{{ solution }}}} nor {{{{ answer }}}} ({why}): nothing would be privileged"
        )
    if placement == "user" and "problem" not in shown:
        raise ValueError(f"{KEY} replaces the user's message, so it must use {{{{ problem }}}} ({why})")


def _may_use() -> str:
    return "It may use {{ problem }}, {{ solution }} and {{ answer }}"


def _is_plain(tree: nodes.Template) -> bool:
    found = list(tree.find_all(nodes.Node))
    filters = [node for node in found if isinstance(node, nodes.Filter)]
    return all(isinstance(node, _PLAIN_NODES) for node in found) and all(
        node.name in _PLAIN_FILTERS and not node.args and not node.kwargs for node in filters
    )


def _tried_here(text: str) -> list[str] | str:
    """The text made of the probe, and of the probe with another problem, solution and answer; or what went wrong."""
    try:
        template = ENVIRONMENT.from_string(text)
        changed = [{**_PROBE, name: _PROBE[name].translate(_OTHERS)} for name in NAMES]
        return [_bounded(template, values) for values in (_PROBE, *changed)]
    except MemoryError:
        return f"rendering it takes more than {MEMORY_BYTES >> 20} MiB of memory"
    except Exception as error:  # whatever the template's own code raises
        return f"{type(error).__name__}: {error}"


def _bounded(template: jinja2.Template, values: dict[str, str]) -> str:
    parts: list[str] = []
    length = 0
    for part in template.generate(values):
        length += len(part)
        if length > MAX_CHARS:
            raise ValueError(f"it makes a text of more than {MAX_CHARS:,} characters")
        parts.append(part)
    return "".join(parts)


@functools.lru_cache
def _tried_elsewhere(text: str, cpu_seconds: int, memory_bytes: int) -> list[str] | str:
    """The same in a process with limits."""
    command = [sys.executable, __file__, str(cpu_seconds), str(memory_bytes)]
    try:
        done = subprocess.run(command, input=json.dumps(text), capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"rendering it does not end within {PATIENCE_SECONDS} s"
    if done.returncode < 0:
        return f"rendering it does not end within {cpu_seconds} s of processor time"
    if done.returncode > 0:
        return f"rendering it ends its process: {done.stderr.strip()[-500:]}"
    return json.loads(done.stdout)


def _main() -> None:
    cpu_seconds, memory_bytes = (int(limit) for limit in sys.argv[1:])
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory_bytes),
    ):
        resource.setrlimit(kind, (limit, limit))
    print(json.dumps(_tried_here(json.loads(sys.stdin.read()))))


if __name__ == "__main__":
    _main()
