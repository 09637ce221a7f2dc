"""The figures of a study, as PNG bytes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.study.plan import Plan
from examples.study.record import Record
from examples.study.tables import Results, mean, parts, values
from recipe.hdpo.evaluation.plots import png_bytes, tidy

_COLOURS = ("#000000", "#777777", "#56B4E9", "#0072B2", "#003f66", "#F0A35E", "#D55E00", "#7a2f00", "#009E73")


def accuracy_png(plan: Plan, results: Results) -> bytes:
    """Each part of the problems in a panel: greedy accuracy and pass@k of every arm with intervals."""
    subsets = parts(results.base)
    metrics = ["greedy", *(f"pass@{k}" for k in plan.ks)]
    figure = Figure(figsize=(4.6 * len(subsets), 4.6), layout="constrained")
    for axes, (title, keep) in zip(figure.subplots(1, len(subsets)), subsets.items(), strict=True):
        arms = {"base model": [results.base], **results.reported}
        for i, (arm, records) in enumerate(arms.items()):
            for j, metric in enumerate(metrics):
                if not values(records, metric, keep).size:
                    continue
                interval, x = mean(records, metric, keep), j + 0.08 * (i - len(arms) / 2)
                colour = "#BBBBBB" if arm == "base model" else _colour(plan, arm)
                axes.plot([x, x], [interval.low, interval.high], color=colour, lw=1.4)
                axes.plot(x, interval.estimate, "o", ms=4, color=colour, label=arm if j == 0 else None)
        axes.set_xticks(range(len(metrics)), metrics)
        axes.set_title(title, fontsize=10)
        tidy(axes)
    _legend(figure)
    return png_bytes(figure)


def curves_png(plan: Plan, results: Results) -> bytes:
    """Cliff rate, privileged solve rate, reward and entropy over steps; the mean over seeds, smoothed."""
    panels = {
        "hdpo/cliff_rate": "cliff rate",
        "hdpo/privileged_solve_rate": "solve rate of the cliffs' extra rollouts",
        "critic/score/mean": "mean reward of the rollouts",
        "actor/entropy": "entropy (nats)",
    }
    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 2).ravel(), panels.items(), strict=True):
        for arm, records in results.reported.items():
            _curve(axes, records, name, _colour(plan, arm), arm)
        axes.set(title=title, xlabel="training step")
        tidy(axes)
    _legend(figure)
    return png_bytes(figure)


def tuning_png(plan: Plan, results: Results) -> bytes:
    """Privileged solve rate over steps in the tuning runs, a panel per learning rate: where a teacher collapses."""
    rates = plan.learning_rates
    figure = Figure(figsize=(4.6 * len(rates), 3.8), layout="constrained")
    panels = figure.subplots(1, len(rates), squeeze=False, sharey=True)[0]
    for axes, lr in zip(panels, rates, strict=True):
        for arm, records in results.tuned.items():
            # Arms that distill nothing have no teacher to lose.
            distilled = [r for r in records if r.run.lr == lr and "hdpo/jsd_mean" in r.curves]
            _curve(axes, distilled, "hdpo/privileged_solve_rate", _colour(plan, arm), arm)
        axes.set(title=f"learning rate {lr:g}", xlabel="training step", ylim=(-0.03, 1.03))
        tidy(axes)
    panels[0].set_ylabel("privileged solve rate")
    _legend(figure)
    return png_bytes(figure)


def _curve(axes: Axes, records: list[Record], name: str, colour: str, label: str) -> None:
    by_step: dict[int, list[float]] = defaultdict(list)
    for record in records:
        for step, value in record.curves.get(name, []):
            by_step[int(step)].append(value)
    if not by_step:
        return
    steps = np.array(sorted(by_step))
    means = np.array([np.mean(by_step[step]) for step in steps])
    width = max(1, len(steps) // 10)
    smooth = np.array([means[max(0, i - width + 1) : i + 1].mean() for i in range(len(means))])
    axes.plot(steps, smooth, color=colour, lw=1.6, label=label)


def _colour(plan: Plan, arm: str) -> str:
    return _COLOURS[list(plan.arms).index(arm) % len(_COLOURS)]


def _legend(figure: Figure) -> None:
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if found:
        figure.legend(found.values(), list(found), loc="outside lower center", ncols=min(5, len(found)), frameon=False)
