"""The default templates of privileged messages, by what they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

USER_TEMPLATE = """{{ problem }}

A reference solution is given below. Study it, then solve the problem yourself, step by step, in the same way \
and with the same answer format as if you had not seen it. Do not mention the reference.

{{ solution }}"""

SYSTEM_TEMPLATE = """The user is going to ask a problem. A reference solution is given below. Study it, then solve the \
problem yourself, step by step, in the same way and with the same answer format as if you had not seen it. \
Do not mention the reference.

{{ solution }}"""

FEEDBACK_USER_TEMPLATE = """{{ problem }}

An earlier attempt at this problem failed. It is given below, with what its check said. Study both, then solve the \
problem yourself, step by step, in the same way and with the same answer format as if you had not seen them. \
Do not mention the attempt or its check.

The attempt:
{{ attempt }}

What its check said:
{{ feedback }}"""

FEEDBACK_SYSTEM_TEMPLATE = """The user is going to ask a problem. An earlier attempt at it failed. It is given below, \
with what its check said. Study both, then solve the problem yourself, step by step, in the same way and with the same \
answer format as if you had not seen them. Do not mention the attempt or its check.

The attempt:
{{ attempt }}

What its check said:
{{ feedback }}"""


@dataclass(frozen=True)
class Kind:
    """What a template is for.

    Attributes:
        key: the setting that holds it.
        names: what it may use.
        shows: of these it must show one, or nothing would be privileged.
        defaults: by placement.
    """

    key: str
    names: tuple[str, ...]
    shows: tuple[str, ...]
    defaults: Mapping[str, str]


SOLUTION = Kind(
    "hdpo.privileged.template",
    ("problem", "solution", "answer"),
    ("solution", "answer"),
    {"user": USER_TEMPLATE, "system": SYSTEM_TEMPLATE},
)
FEEDBACK = Kind(
    "hdpo.privileged.feedback_template",
    ("problem", "attempt", "feedback"),
    ("feedback",),
    {"user": FEEDBACK_USER_TEMPLATE, "system": FEEDBACK_SYSTEM_TEMPLATE},
)
