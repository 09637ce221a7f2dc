"""Tries a template of a privileged message. Run as a program it does so in a process with limits; for that it imports
nothing of this package."""

from __future__ import annotations

import json
import resource
import sys

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

NAMES = ("problem", "solution", "answer", "attempt", "feedback")

# Limits of a trial: memory, and the length of each text that is made.
MEMORY_BYTES = 1 << 30
MAX_CHARS = 1_000_000

ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
)
del ENVIRONMENT.globals["lipsum"]  # another text in every process

# The forms that solutions often have, and as long as a short one of them.
_PROBE = {
    "problem": "Tom has 3 pens & finds 4.\nHow many has he?",
    "solution": "He finds $4$, so it is 3 + 4 = 7.\n" * 40 + "\\boxed{7}\n#### 7",
    "answer": "7",
    "attempt": "He has 3 < 4, so 4.\n" * 20 + "#### 4",
    "feedback": "Wrong:\n4 is no answer to 3 & 4.",
}
# Every letter and digit becomes another one, so what is shown differs wherever it is cut, and nothing of its length.
_OTHERS = str.maketrans("abcdefghijklmnopqrstuvwxyzBT0123456789", "bcdefghijklmnopqrstuvwxyzaCU1234567890")


def tried_here(text: str) -> list[str] | str:
    """The text made of the probe, and of the probe with another of each of :data:`NAMES`; or what went wrong."""
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


def _main() -> None:
    cpu_seconds, memory_bytes = (int(limit) for limit in sys.argv[1:])
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory_bytes),
    ):
        resource.setrlimit(kind, (limit, limit))
    print(json.dumps(tried_here(json.loads(sys.stdin.read()))))


if __name__ == "__main__":
    _main()
