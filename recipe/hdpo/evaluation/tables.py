"""Tables as plain text for the terminal and as Markdown, and the numbers in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recipe.hdpo.evaluation.intervals import Interval


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


def show(interval: Interval, signed: bool = False) -> str:
    """``0.412 [0.380, 0.444]``."""
    form = "{:+.3f}" if signed else "{:.3f}"
    if interval.low is None or interval.high is None:
        return form.format(interval.estimate)
    return f"{form.format(interval.estimate)} [{form.format(interval.low)}, {form.format(interval.high)}]"


def markdown_table(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
