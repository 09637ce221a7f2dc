"""Marks in a Markdown file, and what stands at them. Both kinds are HTML comments, which a reader does not see.

0.726<!--= mean sums hdpo_1 pass@8 -->              the text before the comment: a number, or one with its interval
<!-- begin: study --> ... <!-- end -->              a block
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Values = Mapping[str, Callable[..., str]]
Blocks = Mapping[str, Callable[[], str]]

# A "?" stands where a number was never filled in.
_VALUE = re.compile(r"(?:\?|[-+]?\d[\d.,]*(?:e-?\d+)?(?: \[[^\]\n]*\])?)<!--= ([^>]*?) -->")
_BLOCK = re.compile(r"<!-- begin: ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
_ANY = re.compile(r"<!--(?:=| begin:| end)")


def fill(text: str, values: Values, blocks: Blocks) -> str:
    """A document with every mark filled anew.

    Args:
        values: what stands before a mark, by the mark's first word; the other words are arguments.
        blocks: what stands in a block, by its name.

    Raises:
        ValueError: a mark that names nothing known, or has no number before it, or a block without an end.
    """

    def value(match: re.Match) -> str:
        name, *arguments = match[1].split()
        if name not in values:
            raise ValueError(f"mark `{match[1]}`: there is no value `{name}`; known are {', '.join(sorted(values))}")
        return f"{values[name](*arguments)}<!--= {match[1]} -->"

    def block(match: re.Match) -> str:
        if match[1] not in blocks:
            raise ValueError(f"there is no block `{match[1]}`; known are {', '.join(sorted(blocks))}")
        return f"<!-- begin: {match[1]} -->\n\n{blocks[match[1]]()}\n\n<!-- end -->"

    found = len(_VALUE.findall(text)) + 2 * len(_BLOCK.findall(text))
    if found != len(_ANY.findall(text)):
        raise ValueError("a mark has no number before it, or a block has no begin or no end")
    return _VALUE.sub(value, _BLOCK.sub(block, text))


def blocks_in(text: str) -> set[str]:
    """Names of the blocks of a document."""
    return set(_BLOCK.findall(text))


def table(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body])
