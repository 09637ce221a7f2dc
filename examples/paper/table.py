"""The paper's Tables 1 and 3 beside one's own runs: best evaluation, as the paper reports, and the last one.

    python -m examples.paper.table RUNS [--source SOURCE]     (make paper-table RUNS=...)

RUNS holds ARM/SEED/*.jsonl, verl's file logger of each start of a run, as ``examples/paper/runs.sh`` writes them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from scipy import stats

from recipe.hdpo.evaluation.intervals import CONFIDENCE, Interval
from recipe.hdpo.evaluation.tables import markdown_table, show
from recipe.hdpo.evaluation.training_log import read_training_log
from recipe.hdpo.evaluation.wording import counted

PAPER = Path(__file__).with_name("tables.yaml")
GREEDY = "greedy"
_METRIC = re.compile(r"val-hdpo/(?P<source>.+)/(?P<metric>greedy|pass@\d+)")


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of one run: metric -> (steps, values), each shape (E,), by ascending step."""

    arm: str
    seed: str
    series: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def best(self, metric: str) -> float:
        """The highest of all evaluations of this metric, whatever the others are there."""
        return float(self.series[metric][1].max())

    def last(self, metric: str) -> float:
        """The last evaluation's."""
        return float(self.series[metric][1][-1])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; returns the exit status (2 after an error that the user can mend)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="a folder with ARM/SEED/*.jsonl")
    parser.add_argument("--source", help="the data source of the evaluations (default: the only one)")
    args = parser.parse_args(argv)
    try:
        print(tables(read_runs(args.runs, args.source), paper_tables()))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def paper_tables() -> dict[str, Any]:
    """What ``tables.yaml`` holds: the paper's figures by table and arm, and each arm's overrides."""
    content: Any = OmegaConf.to_container(OmegaConf.load(PAPER))
    return content


def read_runs(folder: Path, source: str | None = None) -> list[Evaluations]:
    """Every run of a folder, by arm and seed.

    Raises:
        ValueError: no run, a run without an evaluation, evaluations of several data sources and none chosen, or runs
            that were evaluated a different number of times or at other steps.
    """
    folders = sorted({path.parent for path in folder.glob("*/*/*.jsonl")})
    if not folders:
        raise ValueError(f"{folder}: no ARM/SEED/*.jsonl in it. Pass the RUNS folder of examples/paper/runs.sh.")
    runs = [_read_run(path, source) for path in folders]
    steps = {f"{run.arm}/{run.seed}": tuple(run.series["pass@1"][0]) for run in runs}
    longest = max(steps, key=lambda name: len(steps[name]))
    others = [name for name, at in steps.items() if at != steps[longest]]
    if others:
        raise ValueError(
            f"{folder}: {', '.join(others)} were not evaluated at the steps of {longest} (an unfinished run?): "
            "a best of more evaluations is higher by itself. Finish them, or move them elsewhere."
        )
    return runs


def _read_run(folder: Path, source: str | None) -> Evaluations:
    found: dict[str, dict[str, dict[int, float]]] = {}
    # A resumed run repeats the steps since its checkpoint: the later start's values count.
    for file in sorted(folder.glob("*.jsonl")):
        if not file.stat().st_size:
            continue
        for name, (steps, values) in read_training_log(file).items():
            if match := _METRIC.fullmatch(name):
                series = found.setdefault(match["source"], {}).setdefault(match["metric"], {})
                series |= dict(zip(steps.tolist(), values.tolist(), strict=True))
    if source is None and len(found) > 1:
        raise ValueError(f"{folder}: evaluations of {', '.join(sorted(found))}: choose one with --source.")
    chosen = found.get(source, {}) if source else next(iter(found.values()), {})
    if "pass@1" not in chosen:
        raise ValueError(
            f"{folder}: no val-hdpo/{source or 'SOURCE'}/pass@1 in its logs. It is logged with trainer.test_freq > 0 "
            "and trainer.logger=[file]."
        )
    by_metric = {m: (np.array(sorted(at)), np.array([at[s] for s in sorted(at)])) for m, at in chosen.items()}
    return Evaluations(folder.parent.name, folder.name, by_metric)


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean over S seeds with Student's t interval of S - 1 degrees of freedom; none for a single seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def tables(runs: list[Evaluations], paper: Mapping[str, Any]) -> str:
    """Markdown: means over seeds, then differences to GRPO, paired by seed, each beside the paper's."""
    arms = [arm for arm in paper["arms"] if any(run.arm == arm for run in runs)]
    arms += sorted({run.arm for run in runs} - set(arms))
    metrics = [GREEDY, *paper["metrics"]]
    steps = runs[0].series["pass@1"][0]
    text = [
        f"{len(runs)} runs, each evaluated {len(steps)} times, last at step {steps[-1]}. Means over seeds with 95 % "
        "intervals (Student's t over seeds; they say nothing of other problems). The paper has one seed, and each of "
        "its figures is the best of about 200 evaluations, which is biased upward; judge by the last one. Its pass@1 "
        "is called greedy in the text, so both stand here."
    ]
    for way in ("last", "best"):
        text.append(f"## {'Last evaluation' if way == 'last' else 'Best of all evaluations, each metric by itself'}")
        text.append(_means(runs, arms, metrics, way, paper))
        text.append(_differences(runs, arms, metrics, way, paper))
    return "\n\n".join(text)


def _value(run: Evaluations, metric: str, way: str) -> float:
    return run.best(metric) if way == "best" else run.last(metric)


def _means(runs: list[Evaluations], arms: list[str], metrics: list[str], way: str, paper: Mapping[str, Any]) -> str:
    body = []
    for arm in arms:
        own = [run for run in runs if run.arm == arm]
        cells = [
            show(over_seeds([_value(run, metric, way) for run in own])) if all(metric in r.series for r in own) else ""
            for metric in metrics
        ]
        body.append([arm, f"here, {counted(len(own), 'seed')}", *cells])
        for title, rows in paper["tables"].items():
            if arm in rows:
                body.append([arm, f"paper, {title}", "", *(f"{value:.4f}" for value in rows[arm])])
    return markdown_table(["arm", "run", *metrics], body)


def _differences(
    runs: list[Evaluations], arms: list[str], metrics: list[str], way: str, paper: Mapping[str, Any]
) -> str:
    by_name = {(run.arm, run.seed): run for run in runs}
    body = []
    for arm in arms:
        seeds = [run.seed for run in runs if run.arm == arm and ("grpo", run.seed) in by_name]
        if arm == "grpo" or not seeds:
            continue
        pairs = [(by_name[arm, seed], by_name["grpo", seed]) for seed in seeds]
        cells = [
            show(over_seeds([_value(own, m, way) - _value(base, m, way) for own, base in pairs]), signed=True)
            if all(m in run.series for pair in pairs for run in pair)
            else ""
            for m in metrics
        ]
        body.append([arm, f"here, {counted(len(seeds), 'seed')}", *cells])
        for title, rows in paper["tables"].items():
            if arm in rows:
                gains = [own - base for own, base in zip(rows[arm], rows["grpo"], strict=True)]
                body.append([arm, f"paper, {title}", "", *(f"{gain:+.4f}" for gain in gains)])
    if not body:
        return "No differences: no seed has both grpo and another arm."
    return markdown_table(["minus grpo", "run", *metrics], body)


if __name__ == "__main__":
    sys.exit(main())
