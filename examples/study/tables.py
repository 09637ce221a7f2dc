"""The numbers of a study: means over seeds and problems with intervals, and paired differences to the baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from examples.study.plan import Plan
from examples.study.record import VALIDATED, Problem, Record
from examples.study.results import Results
from examples.study.tasks import TASKS, family
from recipe.hdpo.evaluation.intervals import Interval, two_level_difference, two_level_mean
from recipe.hdpo.evaluation.tables import markdown_table, show

SEED = 0
BASE_MODEL = "base model"
Keep = Callable[[Problem], bool]
Intervals = dict[str, dict[str, Interval]]  # arm -> metric -> interval
# Of a record's ``signs``, and how they are headed.
SIGNS = {
    "valid_steps": "steps that are true",
    "without_steps": "no step that can be judged",
    "speaks": "speaks of a reference",
    "workless": "shorter than half of the solution",
    "tokens": "tokens of all samples",
}


def columns(plan: Plan) -> list[str]:
    """The metrics of the main table."""
    return ["greedy", *(f"pass@{k}" for k in plan.ks)]


def arms(results: Results) -> dict[str, list[Record]]:
    """The base model's record and the reported ones of every arm."""
    return {BASE_MODEL: [results.base], **results.reported}


def parts(base: Record, untrained: Sequence[str] = ()) -> dict[str, Keep]:
    """The subsets of problems that are told apart: by what the base model did on them, without the families that
    nothing is trained on, and these."""
    solved = {p.id: (p.correct > 0 or p.greedy, p.greedy) for p in base.problems}

    def trained(p: Problem) -> bool:
        return family(p.difficulty) not in untrained

    found: dict[str, Keep] = {
        f"all problems{' of the families trained on' if untrained else ''}": trained,
        "the base model's cliffs (no sample right)": lambda p: trained(p) and not solved[p.id][0],
        "what the base model solved greedily": lambda p: trained(p) and solved[p.id][1],
    }
    return found | ({f"not trained on: {', '.join(untrained)}": lambda p: not trained(p)} if untrained else {})


def of_level(level: str) -> Keep:
    """The problems of one difficulty, or of all difficulties of a family."""
    return lambda p: level in (p.difficulty, family(p.difficulty))


def values(records: list[Record], metric: str, keep: Keep) -> np.ndarray:
    """Shape (S, P): runs by the problems that are kept."""
    mask = np.array([keep(p) for p in records[0].problems])
    return np.stack([record.values(metric)[mask] for record in records])


@dataclass(frozen=True)
class Part:
    """A subset of the problems: its name, which they are and how many, and what the base model and every arm have on
    it, mean over runs and problems; no means where there is no such problem."""

    title: str
    keep: Keep
    count: int
    means: Intervals


def measured(plan: Plan, results: Results) -> list[Part]:
    """Every part of the problems, with the means on it."""
    found = []
    for title, keep in parts(results.base, TASKS[plan.task].untrained).items():
        count = sum(map(keep, results.base.problems))
        means = {
            arm: {metric: two_level_mean(values(runs, metric, keep), SEED, (0.0, 1.0)) for metric in columns(plan)}
            for arm, runs in (arms(results) if count else {}).items()
        }
        found.append(Part(title, keep, count, means))
    return found


def differences(plan: Plan, results: Results, baseline: str, compared: Iterable[str], keep: Keep) -> Intervals:
    """Mean difference of every compared arm to the baseline, paired by problem and by seed (:func:`pairs`)."""

    def difference(arm: str, metric: str) -> Interval:
        own, base = (values(runs, metric, keep) for runs in pairs(results, arm, baseline))
        return two_level_difference(own, base, SEED, (-1.0, 1.0), paired_runs=True)

    return {arm: {metric: difference(arm, metric) for metric in columns(plan)} for arm in compared}


def pairs(results: Results, arm: str, other: str) -> tuple[list[Record], list[Record]]:
    """The runs of two arms with the seeds that both have, in the order of the seeds.

    A seed gives both the same order of the data and the same seeds of sampling. The base model's one record stands
    beside every run.
    """
    if other == BASE_MODEL:
        return results.reported[arm], [results.base] * len(results.reported[arm])
    by_seed = [{record.run.seed: record for record in results.reported[name]} for name in (arm, other)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    return [by_seed[0][seed] for seed in seeds], [by_seed[1][seed] for seed in seeds]


def main_table(plan: Plan, results: Results, part: Part) -> str:
    """Means of the base model and of every arm."""
    body = [[arm, str(len(runs)), *map(show, part.means[arm].values())] for arm, runs in arms(results).items()]
    return markdown_table(["arm", "runs", *columns(plan)], body)


def difference_tables(plan: Plan, results: Results, keep: Keep, with_base: bool = False) -> list[str]:
    """Every arm minus a baseline, over the problems that are kept: a table for each baseline, no pair twice.

    ``with_base``: minus the base model as well, which says nothing where its own samples chose the problems.
    """
    tables: list[str] = []
    seen: set[str] = set()
    baselines = [*filter(results.reported.__contains__, plan.baselines), *([BASE_MODEL] if with_base else [])]
    for name in baselines:
        seen.add(name)
        new = (arm for arm in results.reported if name == BASE_MODEL or arm not in seen)
        compared = [arm for arm in new if pairs(results, arm, name)[0]]
        if compared:
            found = differences(plan, results, name, compared, keep)
            body = [[arm, *signed(intervals)] for arm, intervals in found.items()]
            tables.append(markdown_table([f"minus {name}", *columns(plan)], body))
    return tables or [f"No differences yet: {' or '.join(plan.baselines)} and another arm need a reported run."]


def signed(found: dict[str, Interval]) -> list[str]:
    """Differences as they stand in a table."""
    return [show(interval, signed=True) for interval in found.values()]


def difficulty_table(results: Results, metric: str) -> str:
    """One metric by difficulty, or by family where difficulties name one; mean over runs."""
    levels = sorted({family(p.difficulty) for p in results.base.problems})
    body = [
        [arm, *(f"{values(runs, metric, of_level(level)).mean():.3f}" for level in levels)]
        for arm, runs in arms(results).items()
    ]
    return markdown_table([metric, *levels], body)


def signs_table(results: Results) -> str:
    """What is read in the right samples, which saw no solution, mean over runs; of the runs where it was recorded."""
    recorded = {arm: [r.signs for r in runs if r.signs] for arm, runs in arms(results).items()}
    body = [
        [arm, *(f"{np.mean([signs[name] for signs in found if name in signs] or [np.nan]):.3f}" for name in SIGNS)]
        for arm, found in recorded.items()
        if found
    ]
    return markdown_table(["right samples", *SIGNS.values()], body) if body else ""


def validated_table(results: Results) -> str:
    """The last and the best of the evaluations during training, mean over the runs that have them."""
    body = []
    for arm, records in results.reported.items():
        curves = [[[value for _, value in r.curves.get(name, [])] for r in records] for name in VALIDATED]
        if all(all(runs) for runs in curves):
            shown = [f"{np.mean([pick(run) for run in runs]):.3f}" for runs in curves for pick in (_last, max)]
            body.append([arm, str(len(curves[0][0])), *shown])
    names = [name.rpartition("/")[-1] for name in VALIDATED]
    head = ["arm", "evaluations", *(f"{name}, {which}" for name in names for which in ("last", "best"))]
    return markdown_table(head, body) if body else ""


def _last(run: list[float]) -> float:
    return run[-1]


def tuning_table(plan: Plan, results: Results) -> str:
    """The score of every tuning run, with the privileged solve rate at its end; the chosen rate is bold."""
    body = []
    for arm, records in results.tuned.items():
        cells = []
        for lr in plan.learning_rates:
            scores = [r.mean(plan.select_by) for r in records if r.run.lr == lr]
            ends = [window(r, "hdpo/privileged_solve_rate", last=True) for r in records if r.run.lr == lr]
            cell = f"{np.mean(scores):.3f}" if scores else ""
            cell = f"**{cell}**" if results.chosen.get(arm) == lr else cell
            shown = [f"{end:.2f}" for end in ends if end is not None]
            cells.append(f"{cell} ({', '.join(shown)})" if shown else cell)
        body.append([arm, *cells])
    return markdown_table([f"{plan.select_by} (solve rate)", *(f"{lr:g}" for lr in plan.learning_rates)], body)


def window(record: Record, name: str, last: bool) -> float | None:
    """Mean of a curve's first or last ten values; None without the curve."""
    curve = [value for _, value in record.curves.get(name, [])]
    return float(np.mean(curve[-10:] if last else curve[:10])) if curve else None


def cost_table(results: Results) -> str:
    """What each arm does and takes: privileged solve rate first and last, extra rollouts and kept rows per step."""
    body = []
    for arm, records in results.reported.items():
        steps = records[0].settings["steps"]
        first, last = (
            [v for r in records if (v := window(r, "hdpo/privileged_solve_rate", last=end)) is not None]
            for end in (False, True)
        )
        totals = [
            np.mean([sum(v for _, v in r.curves.get(name, [])) / steps for r in records])
            for name in ("hdpo/privileged_rollouts", "hdpo/kept_trajectories")
        ]
        seconds = np.median([v for r in records for _, v in r.curves["timing_s/step"]])
        collapsed = sum(any(v for _, v in r.curves.get("hdpo/teacher_collapse", [])) for r in records)
        body.append(
            [
                arm,
                " -> ".join(f"{np.mean(part):.2f}" for part in (first, last)) if first else "",
                f"{collapsed} of {len(records)}",
                *(f"{total:.1f}" for total in totals),
                f"{seconds:.1f}",
            ]
        )
    head = [
        "arm",
        "solve rate of extra rollouts, first -> last 10 steps",
        "runs with a warning of the teacher's collapse",
    ]
    return markdown_table([*head, "extra rollouts a step", "kept a step", "median seconds a step"], body)
