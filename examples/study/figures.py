"""The figures of a study, as PNG bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from examples.study.plan import Plan
from examples.study.record import Record
from examples.study.results import Results
from examples.study.tables import Part, columns
from recipe.hdpo.evaluation.plots import png_bytes, tidy

_COLOURS = ("#000000", "#777777", "#56B4E9", "#0072B2", "#003f66", "#F0A35E", "#D55E00", "#7a2f00", "#009E73")
SOLVE_RATE = "hdpo/privileged_solve_rate"
CURVES = {
    "hdpo/cliff_rate": "cliff rate",
    SOLVE_RATE: "solve rate of the cliffs' extra rollouts",
    "critic/score/mean": "mean reward of the rollouts",
    "actor/entropy": "entropy (nats)",
}


def accuracy_png(plan: Plan, parts: list[Part]) -> bytes:
    """Each part of the problems in a panel: greedy accuracy and pass@k of every arm with intervals."""
    figure = Figure(figsize=(4.6 * len(parts), 4.6), layout="constrained")
    for axes, part in zip(figure.subplots(1, len(parts)), parts, strict=True):
        for i, (arm, intervals) in enumerate(part.means.items()):
            colour = _colour(plan, arm)
            for j, interval in enumerate(intervals.values()):
                x = j + 0.08 * (i - len(part.means) / 2)
                axes.plot([x, x], [interval.low, interval.high], color=colour, lw=1.4)
                axes.plot(x, interval.estimate, "o", ms=4, color=colour, label=arm if j == 0 else None)
        axes.set_xticks(range(len(columns(plan))), columns(plan))
        axes.set_title(part.title, fontsize=10)
    return _finished(figure)


def curves_png(plan: Plan, results: Results) -> bytes:
    """Cliff rate, privileged solve rate, reward and entropy over steps; the mean over seeds, smoothed."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 2).ravel(), CURVES.items(), strict=True):
        _curves(axes, plan, results.reported, name)
        axes.set(title=title, xlabel="training step")
    return _finished(figure)


def tuning_png(plan: Plan, results: Results) -> bytes:
    """Privileged solve rate over steps in the tuning runs, a panel per learning rate: where a teacher collapses."""
    rates = plan.learning_rates
    figure = Figure(figsize=(4.6 * len(rates), 3.8), layout="constrained")
    panels = figure.subplots(1, len(rates), squeeze=False, sharey=True)[0]
    # Arms that distill nothing have no teacher to lose.
    distilled = {arm: [r for r in runs if "hdpo/jsd_mean" in r.curves] for arm, runs in results.tuned.items()}
    for axes, lr in zip(panels, rates, strict=True):
        _curves(axes, plan, {arm: [r for r in runs if r.run.lr == lr] for arm, runs in distilled.items()}, SOLVE_RATE)
        axes.set(title=f"learning rate {lr:g}", xlabel="training step", ylim=(-0.03, 1.03))
    panels[0].set_ylabel("privileged solve rate")
    return _finished(figure)


def _curves(axes: Any, plan: Plan, arms: Mapping[str, list[Record]], name: str) -> None:
    for arm, records in arms.items():
        by_step: dict[int, list[float]] = defaultdict(list)
        for step, value in (point for record in records for point in record.curves.get(name, [])):
            by_step[int(step)].append(value)
        if by_step:
            means = np.array([np.mean(by_step[step]) for step in sorted(by_step)])
            width = max(1, len(means) // 10)
            smooth = [means[max(0, i - width + 1) : i + 1].mean() for i in range(len(means))]
            axes.plot(sorted(by_step), smooth, color=_colour(plan, arm), lw=1.6, label=arm)


def _colour(plan: Plan, arm: str) -> str:
    return _COLOURS[list(plan.arms).index(arm) % len(_COLOURS)] if arm in plan.arms else "#BBBBBB"


def _finished(figure: Figure) -> bytes:
    """With one legend of all panels under them."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        tidy(axes)
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if found:
        figure.legend(found.values(), list(found), loc="outside lower center", ncols=min(5, len(found)), frameon=False)
    return png_bytes(figure)
