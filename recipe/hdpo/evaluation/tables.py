"""Plain text tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell: the first to the left, the others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]

    def join(line: list[str]) -> str:
        return "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )

    return "\n".join([join(lines[0]), "  ".join("-" * w for w in widths), *map(join, lines[1:])])


def number(interval: dict[str, Any], metric: str, signed: bool = False) -> str:
    """``estimate [low, high]`` with the digits that suit the metric; ``?`` where no interval can be given."""
    form = f"{'+' if signed else ''}.{1 if metric == 'mean_tokens' else 3}f"
    if interval["low"] is None:
        return f"{interval['estimate']:{form}} [?]"
    return f"{interval['estimate']:{form}} [{interval['low']:{form}}, {interval['high']:{form}}]"
