"""Figures as inline SVG: their text is text, and their lines and text take the page's colour, also a dark page's."""

from __future__ import annotations

import io
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

# Lines and text are drawn in this colour, which is then replaced by currentColor.
INK = "#0a0b0c"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hdpo",
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "grid.color": "#8a8f98",
}


def svg_style() -> Any:
    """The context to draw a figure in."""
    return rc_context(_STYLE)


def svg_text(figure: Figure) -> str:
    """The ``<svg>`` element, without a background: the same figure gives the same text."""
    figure.patch.set_alpha(0.0)
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")
