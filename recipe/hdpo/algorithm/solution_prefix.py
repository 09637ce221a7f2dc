"""The first part of a worked solution: what the source ``prefix:SHARE`` shows.

A solution is cut between two of its pieces: lines, or sentences where it has one line only. The prefix has as many
pieces as fit into the share of its characters, at least one and never all, so that something is left to be done.
"""

from __future__ import annotations

import re

PREFIX = "prefix"

# The space behind the end of a sentence, or nothing behind a full stop of Chinese or Japanese. "3.5" has no space.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。\uff01\uff1f])\s*")


def prefix_share(source: str) -> float | None:
    """The share of ``prefix:SHARE``, in (0, 1); None of another source.

    Raises:
        ValueError: ``prefix`` without a share, or with one that is no number strictly between 0 and 1.
    """
    name, _, share = source.partition(":")
    if name != PREFIX:
        return None
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise ValueError(f"{source!r} needs a share strictly between 0 and 1, such as {PREFIX}:0.5")
    return value


def solution_prefix(solution: str, share: float) -> str | None:
    """The first pieces of a solution that fit into a share of its characters; None where there is one piece only.

    Args:
        share: in (0, 1), of the solution's characters without white space at its ends.
    """
    text = solution.strip()
    ends = [match.start() for match in re.finditer(r"\s*\n\s*", text)]
    if not ends:
        ends = [match.start() for match in _SENTENCE_END.finditer(text) if match.end() < len(text)]
    if not ends:
        return None
    return text[: max((end for end in ends if end <= share * len(text)), default=ends[0])]
