"""Where the privileged part of a privileged prompt begins and ends, found by comparing it with the plain one."""

from __future__ import annotations

Segments = list[tuple[str, str]]


def marked(plain: str, privileged: str, shown: str) -> Segments:
    """The privileged prompt in parts, as (kind, text): ``""`` for what the plain one has too, ``added`` for what it has
    not, and within that ``shown`` for the privileged text itself. Joined they are the prompt."""
    before = _shared(plain, privileged)
    end = _end(plain, privileged, before, before)
    # The last one: an answer may stand in the instructions as well.
    start = privileged.rfind(shown, max(0, before - len(shown)), end + len(shown)) if shown else -1
    if start < 0:
        parts: Segments = [("", privileged[:before]), ("added", privileged[before:end]), ("", privileged[end:])]
    else:
        # What both prompts happen to share at an edge of the text belongs to the text.
        before, stop = min(before, start), start + len(shown)
        end = _end(plain, privileged, before, stop)
        parts = [("", privileged[:before]), ("added", privileged[before:start]), ("shown", shown)]
        parts += [("added", privileged[stop:end]), ("", privileged[end:])]
    return [(css, text) for css, text in parts if text]


def _shared(a: str, b: str) -> int:
    """Characters that two texts have in common at their beginning."""
    shortest = min(len(a), len(b))
    return next((i for i in range(shortest) if a[i] != b[i]), shortest)


def _end(plain: str, privileged: str, before: int, stop: int) -> int:
    """Where what both texts end in begins in the privileged one: not before ``stop``, nor in the plain one before
    ``before``."""
    return len(privileged) - _shared(plain[before:][::-1], privileged[stop:][::-1])
