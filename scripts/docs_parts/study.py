"""Numbers of the studies (`docs/results/{sums,language,collapse}`).

Means come from the result files of the runs. Intervals come from the result page beside them, which a test compares
with the same files: the page's 10,000 resamples are not drawn again here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np

from examples.study.plan import read_plan
from examples.study.record import Problem, Record
from examples.study.result_files import read_records
from examples.study.results import Results, sort_out
from examples.study.tables import BASE_MODEL, of_level, parts, values
from examples.study.tasks import TASKS
from examples.training import ROOT

RESULTS = ROOT / "docs/results"
BASE = "base"
# The parts of the test problems, in the order of the result page.
PARTS = ("all", "cliffs", "known", "untrained")


@functools.cache
def made(plan: str) -> Results:
    """The records of a study, sorted out."""
    return sort_out(read_plan(plan), read_records(RESULTS / plan / "runs"))


def runs(plan: str, arm: str) -> list[Record]:
    """The reported runs of an arm, or the base model's."""
    results = made(plan)
    return [results.base] if arm == BASE else results.reported[arm]


def wanted_seeds(plan: str, arm: str) -> int:
    """How many runs the plan has of an arm."""
    return 1 if arm in read_plan(plan).one_seed else len(read_plan(plan).seeds)


def keep(plan: str, part: str) -> Callable[[Problem], bool]:
    """Which problems belong to a part."""
    if part.startswith("terms="):
        return lambda problem: problem.difficulty == part.removeprefix("terms=")
    if part.startswith("family="):
        return of_level(part.removeprefix("family="))
    return list(parts(made(plan).base, TASKS[read_plan(plan).task].untrained).values())[PARTS.index(part)]


def _mean(plan: str, arm: str, metric: str, part: str) -> float:
    return float(values(runs(plan, arm), metric, keep(plan, part)).mean())


def mean(plan: str, arm: str, metric: str, part: str = "all") -> str:
    """Mean over runs and problems. ``part``: one of PARTS, terms=N or family=NAME."""
    return f"{_mean(plan, arm, metric, part):.3f}"


def gain(plan: str, arm: str, baseline: str, metric: str, part: str = "all", seed: str = "") -> str:
    """An arm's mean, or that of its run with one seed (``seed=N``), minus the baseline's mean over its runs."""
    if seed:
        [run] = [run for run in runs(plan, arm) if run.run.seed == int(seed.removeprefix("seed="))]
        ours = float(values([run], metric, keep(plan, part)).mean())
    else:
        ours = _mean(plan, arm, metric, part)
    return signed(ours - _mean(plan, baseline, metric, part))


def signed(number: float) -> str:
    """``+0.163``, and never a zero with a minus."""
    return f"{number:+.3f}".replace("-0.000", "+0.000")


def page(plan: str) -> str:
    """The result page of a study."""
    return (RESULTS / plan / "README.md").read_text(encoding="utf-8")


def interval(plan: str, arm: str, baseline: str, metric: str, part: str = "all") -> str:
    """A paired difference with its interval, as the study's result page has it. ``base`` is the base model.

    Raises:
        ValueError: the page does not have it.
    """
    sections = [section for section in page(plan).split("\n## ") if "| minus grpo | greedy |" in section]
    other = BASE_MODEL if baseline == BASE else baseline
    block = sections[PARTS.index(part)].partition(f"| minus {other} |")[2].partition("\n\n")[0].splitlines()
    rows = [line for line in block if line.startswith(f"| {arm} |")]
    if not rows:
        raise ValueError(
            f"docs/results/{plan}/README.md has no row {arm} minus {baseline}: write the page anew "
            f"(python -m examples.study.report --plan {plan}), or name {baseline} in the baselines of "
            f"examples/study/{plan}.yaml, before {arm} where that is one too"
        )
    metrics = [cell.strip() for cell in block[0].strip("| ").split("|")]
    return [cell.strip() for cell in rows[0].strip("| ").split("|")][1 + metrics.index(metric)]


def problems(plan: str, part: str = "all") -> str:
    """How many test problems a part has."""
    return str(sum(map(keep(plan, part), made(plan).base.problems)))


def rate(plan: str, arm: str) -> str:
    """The learning rate of an arm, ``1e-4``."""
    return rate_text(made(plan).chosen[arm])


def rate_text(lr: float) -> str:
    """``1e-4``."""
    return re.sub(r"e-0", "e-", f"{lr:.0e}")


def tuned(plan: str, arm: str, lr: str, metric: str, part: str = "all") -> str:
    """Mean over the tuning runs of an arm with one learning rate, or of the base model. ``part``: all, or terms=N."""
    results = made(plan)
    found = [results.base_tuning] if arm == BASE else [r for r in results.tuned[arm] if r.run.lr == float(lr)]
    return f"{values([r for r in found if r], metric, keep(plan, part)).mean():.3f}"


def curve(plan: str, arm: str, name: str, first: str, last: str, tuned: str = "") -> str:
    """Mean of a training metric over the steps from ``first`` to ``last``, over the reported runs of an arm, or over
    the tuning runs with one learning rate (``lr=3e-4``)."""
    found = runs(plan, arm)
    if tuned:
        found = [r for r in made(plan).tuned[arm] if r.run.lr == float(tuned.removeprefix("lr="))]
    return f"{mean_of_curve(found, name, int(first), int(last)):.2f}"


def mean_of_curve(records: list[Record], name: str, first: int, last: int) -> float:
    """Mean of a training metric over runs and the steps from ``first`` to ``last``."""
    return float(np.mean([value for r in records for step, value in r.curves.get(name, []) if first <= step <= last]))


def warned(plan: str, arm: str) -> str:
    """How many reported runs of an arm warned of a collapsing teacher."""
    return str(sum(any(value for _, value in run.curves["hdpo/teacher_collapse"]) for run in runs(plan, arm)))


def sign(plan: str, arm: str, name: str) -> str:
    """What is read in an arm's right samples, which saw no solution (``valid_steps``, ...), mean over its runs."""
    return f"{np.mean([run.signs[name] for run in runs(plan, arm)]):.3f}"
