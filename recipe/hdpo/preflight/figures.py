"""Vector plots for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from recipe.hdpo.evaluation.plots import plain, tidy
from recipe.hdpo.evaluation.svg import INK, svg_style, svg_text
from recipe.hdpo.preflight.rollouts import Json

# Told apart with any colour vision, on a white page and on a dark one.
COLOURS = ("#8a8f98", "#2f8fd8", "#d9722a", "#1fa37c", "#c678b4", "#d4a017")


def cliffs_svg(by_k: Sequence[Json]) -> str:
    """Share of cliffs over the group size, with its intervals."""
    with svg_style():
        figure, axes = _figure()
        ks = [row["k"] for row in by_k]
        _points(axes, ks, [row["share"] for row in by_k], COLOURS[1], "cliffs", line=True)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.minorticks_off()
        axes.set_xlabel("K, rollouts per prompt")
        return _svg(figure, axes, legend=False)


def difficulty_svg(plain_rates: Mapping[str, Json], sources: Mapping[str, Mapping[str, Json]]) -> str:
    """Share of right rollouts by difficulty, of plain ones and of each source's."""
    with svg_style():
        figure, axes = _figure()
        levels = list(plain_rates)
        kinds = {"plain": plain_rates, **sources}
        for i, (name, rates) in enumerate(kinds.items()):
            dodge = 0.14 * (i - (len(kinds) - 1) / 2)
            known = [(j, rates[level]["pass"]["1"]) for j, level in enumerate(levels) if "1" in rates[level]["pass"]]
            _points(axes, [j + dodge for j, _ in known], [rate for _, rate in known], COLOURS[i % len(COLOURS)], name)
        axes.set_xticks(range(len(levels)), [plain(level) for level in levels])
        axes.set_xlabel("difficulty")
        return _svg(figure, axes)


def lengths_svg(lengths: Mapping[str, Json], limit: int) -> str:
    """Median and 10 to 90 % of the lengths of each kind of rollout, in tokens."""
    rows = [(f"{name}, {kind}", row) for name, kinds in lengths.items() for kind, row in kinds.items()]
    rows = [(name, row) for name, row in rows if row["rollouts"] and not name.endswith(", all")]
    with svg_style():
        figure, axes = _figure(height=0.34 * len(rows) + 1.0)
        for i, (name, row) in enumerate(rows):
            colour = COLOURS[list(lengths).index(name.rpartition(", ")[0]) % len(COLOURS)]
            axes.plot([row["p10"], row["p90"]], [i, i], color=colour, lw=5, alpha=0.45, solid_capstyle="butt")
            axes.plot(row["median"], i, "o", color=colour, ms=6)
        axes.axvline(limit, color=INK, lw=1, ls=":")
        axes.set_yticks(range(len(rows)), [plain(name) for name, _ in rows])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("tokens: median, 10 to 90 %; dotted: the limit")
        tidy(axes)
        return svg_text(figure)


def _figure(height: float = 3.0) -> tuple[Figure, Axes]:
    # As wide as a phone's page, so that text keeps its size there.
    figure = Figure(figsize=(5.2, height), layout="constrained")
    return figure, figure.subplots()


def _points(
    axes: Axes, x: Sequence[float], points: Sequence[Json], colour: str, label: str, line: bool = False
) -> None:
    for place, point in zip(x, points, strict=True):
        axes.plot([place, place], [point["low"], point["high"]], color=colour, lw=2, alpha=0.7)
    y = [point["estimate"] for point in points]
    axes.plot(x, y, "o", ls="-" if line else "none", ms=5, lw=1.4, color=colour, label=plain(label))


def _svg(figure: Figure, axes: Axes, legend: bool = True) -> str:
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    tidy(axes)
    if legend:
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(names)), frameon=False)
    return svg_text(figure)
