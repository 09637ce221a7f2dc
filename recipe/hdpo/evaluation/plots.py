"""Figures of a comparison and of training runs, as SVG text."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recipe.hdpo.evaluation.comparison import Comparison
from recipe.hdpo.evaluation.svg import svg_style, svg_text
from recipe.hdpo.evaluation.wording import counted

Series = Mapping[str, tuple[np.ndarray, np.ndarray]]  # metric -> (steps, values)

# After Okabe and Ito: told apart with any colour vision, on a white page and on a dark one.
_COLOURS = ("#2f8fd8", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#8a8f98", "#56B4E9")
_MARKERS = "osD^vPX"

TRAINING_METRICS = {
    "hdpo/cliff_rate": "Cliff rate",
    "hdpo/privileged_solve_rate": "Privileged solve rate",
    "critic/score/mean": "Mean reward",
    "response_length/mean": "Response length (tokens)",
    "actor/entropy": "Entropy (nats)",
    "hdpo/cliffs": "Cliffs per step",
    "hdpo/kept_trajectories": "Kept trajectories per step",
    "hdpo/cliffs_solved_now": "Former cliffs solved by the student",
    "hdpo/new_cliffs": "Solved before, cliffs now",
    "hdpo/jsd_mean": "JSD_k per token (nats)",
}
MORE_TRAINING_METRICS = ("actor/hdpo/", "val-hdpo/")  # every metric under these prefixes is shown too


def passk_svg(comparison: Comparison) -> str:
    """pass@k of each arm over k and, with two arms or more, the paired differences to the baseline."""
    several = len(comparison.arms) > 1
    with svg_style():
        figure = Figure(figsize=(11.5 if several else 6.2, 4.4), layout="constrained")
        axes = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
        for i, arm in enumerate(comparison.arms):
            dodge = 1.0 + 0.03 * (i - (len(comparison.arms) - 1) / 2)
            points = [comparison.means[arm.name][f"pass@{k}"] for k in comparison.ks]
            _intervals(axes[0], [k * dodge for k in comparison.ks], points, i, plain(arm.name), line=True)
        axes[0].set_xscale("log", base=2)
        axes[0].set_xticks(comparison.ks, [str(k) for k in comparison.ks])
        axes[0].minorticks_off()
        axes[0].set(xlabel="k (samples per problem)", ylabel="pass@k", title="pass@k, unbiased, 95 % intervals")
        _legend(figure, axes[0])
        tidy(axes[0])
        if several:
            _difference_panel(axes[1], comparison)
        return svg_text(figure)


def difficulty_svg(comparison: Comparison) -> str:
    """By difficulty, of each arm: accuracy of one sample, and coverage, pass@k for the largest k."""
    levels = comparison.problems_by_difficulty
    panels = len(comparison.by_difficulty)
    with svg_style():
        width = max(5.0, 0.9 * len(levels) + 1.2)
        figure = Figure(figsize=(width * panels, 4.2), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
        for panel, (metric, arms) in zip(axes, comparison.by_difficulty.items(), strict=True):
            for i, arm in enumerate(comparison.arms):
                dodge = 0.12 * (i - (len(comparison.arms) - 1) / 2)
                points = [arms[arm.name][level] for level in levels]
                _intervals(panel, [x + dodge for x in range(len(levels))], points, i, plain(arm.name))
            panel.set_xticks(
                range(len(levels)), [f"{plain(level)}\n({counted(n, 'problem')})" for level, n in levels.items()]
            )
            panel.set(xlabel="difficulty", title=f"{metric} by difficulty, 95 % intervals", ylim=(-0.03, 1.03))
            tidy(panel)
        _legend(figure, axes[0])
        return svg_text(figure)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)


def training_svg(runs: Mapping[str, Sequence[Series]]) -> str | None:
    """Small multiples of the training metrics over steps; a metric that no run has gets no panel.

    Args:
        runs: arm -> its runs' series, in the order of the comparison's arms; an arm without any keeps its colour.

    Returns:
        The figure, or None if none of the metrics was logged.
    """
    titles = {m: title for m, title in TRAINING_METRICS.items() if any(m in s for r in runs.values() for s in r)}
    more = {m for r in runs.values() for s in r for m in s if m.startswith(MORE_TRAINING_METRICS)}
    titles |= {metric: metric for metric in sorted(more)}
    if not titles:
        return None
    with svg_style():
        columns = min(3, len(titles))
        rows = math.ceil(len(titles) / columns)
        figure = Figure(figsize=(4.1 * columns, 2.7 * rows + 0.5), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, (metric, title) in zip(axes, titles.items(), strict=False):
            for i, series in enumerate(runs.values()):
                for run in series:
                    if metric in run:
                        _curve(panel, *run[metric], _COLOURS[i % len(_COLOURS)])
            panel.set_title(title, fontsize=10)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            tidy(panel)
        for panel in axes[len(titles) :]:
            panel.set_visible(False)
        # A shared x label would sit below hidden panels; the last panel of each column carries it.
        for column in range(columns):
            axes[max(j for j in range(len(titles)) if j % columns == column)].set_xlabel("training step")
        shown = [(i, name) for i, (name, series) in enumerate(runs.items()) if series]
        handles = [axes[0].plot([], [], color=_COLOURS[i % len(_COLOURS)])[0] for i, _ in shown]
        names = [plain(name) for _, name in shown]
        figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
        return svg_text(figure)


def plain(name: str) -> str:
    """A name as matplotlib shall print it: no formula, and not left out of a legend for its first character."""
    return name.replace("$", r"\$").removeprefix("_") if name.strip("_") else "(no name)"


def _difference_panel(axes: Axes, comparison: Comparison) -> None:
    metrics = [m for m in comparison.metrics if m == "greedy" or "@" in m]
    others = comparison.arms[1:]
    for i, arm in enumerate(others, 1):
        rows = {d["metric"]: d for d in comparison.differences if d["arm"] == arm.name}
        dodge = 0.16 * (i - 1 - (len(others) - 1) / 2)
        for j, metric in enumerate(metrics):
            difference, y = rows[metric], j + dodge
            colour = _COLOURS[i % len(_COLOURS)]
            if difference["low"] is not None:
                axes.plot([difference["low"], difference["high"]], [y, y], color=colour, lw=1.6)
            axes.plot(difference["estimate"], y, _MARKERS[i % len(_MARKERS)], color=colour, ms=5)
    axes.axvline(0.0, color="#777777", lw=1, zorder=0)
    axes.set_yticks(range(len(metrics)), metrics)
    axes.invert_yaxis()
    axes.set(xlabel=f"difference to {plain(comparison.arms[0].name)}", title="Paired differences, 95 % intervals")
    tidy(axes)


def _intervals(axes: Axes, x: list[float], points: list[dict], i: int, label: str, line: bool = False) -> None:
    colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
    for place, point in zip(x, points, strict=True):
        if point["low"] is not None:
            axes.plot([place, place], [point["low"], point["high"]], color=colour, lw=1.4, alpha=0.8)
    y = [point["estimate"] for point in points]
    axes.plot(x, y, marker=marker, ms=5, color=colour, ls="-" if line else "none", label=label)


def _curve(axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str) -> None:
    """The values, faint, under their centred moving average over a tenth of the steps (from 30 steps on)."""
    if len(values) < 30:
        axes.plot(steps, values, color=colour, lw=1.3, marker="o" if len(values) < 2 else None, ms=4)
        return
    width = 2 * (len(values) // 20) + 1
    half = width // 2
    smooth = [values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))]
    axes.plot(steps, values, color=colour, lw=0.7, alpha=0.3)
    axes.plot(steps, smooth, color=colour, lw=1.6)


def tidy(axes: Axes) -> None:
    """Two spines, and a faint grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG: the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()
