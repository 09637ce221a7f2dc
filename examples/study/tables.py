"""The numbers of a study: means over seeds and problems with intervals, and paired differences to the baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from examples.study.plan import BASE_RUNS, Plan, Run, choose_learning_rates
from examples.study.record import Problem, Record
from recipe.hdpo.evaluation.intervals import Interval, two_level_difference, two_level_mean
from recipe.hdpo.evaluation.tables import markdown_table, show

SEED = 0
Keep = Callable[[Problem], bool]


@dataclass(frozen=True)
class Results:
    """The records of a study, sorted out. Runs that are not the plan's are in neither of the last two.

    Attributes:
        base: the base model's record on the reported problems; ``base_tuning`` on those that rates are chosen by.
        chosen: the learning rate of every arm whose tuning is complete.
        tuned, reported: records by arm, at the plan's seeds, the reported ones at the chosen rate; an arm without
            records is left out. Nothing is compared before the baseline has a reported run.
        others: records that no part of the plan asks for.
    """

    base: Record
    base_tuning: Record | None
    chosen: dict[str, float]
    tuned: dict[str, list[Record]]
    reported: dict[str, list[Record]]
    others: list[Record]


def sort_out(plan: Plan, records: list[Record]) -> Results:
    """Group a study's records.

    Raises:
        ValueError: no record of the base model.
    """
    by_run = {record.run: record for record in records}
    base_tuning, base = (by_run.pop(run, None) for run in BASE_RUNS)
    if base is None:
        raise ValueError("no evaluation of the base model yet; run `python -m examples.study.run` first")
    tuned = _by_arm(plan.tuning_runs(), by_run)
    chosen: dict[str, float] = {}
    for arm in plan.arms:
        alone = replace(plan, arms={arm: plan.arms[arm]})
        scores = {record.run: record.mean(plan.select_by) for record in tuned.get(arm, [])}
        if all(run in scores for run in alone.tuning_runs()):
            chosen |= choose_learning_rates(alone, scores)
    decided = replace(plan, arms={arm: plan.arms[arm] for arm in chosen})
    reported = _by_arm(decided.report_runs(chosen), by_run)
    used = {record.run for found in (*tuned.values(), *reported.values()) for record in found}
    others = [record for run, record in by_run.items() if run not in used]
    return Results(base, base_tuning, chosen, tuned, reported, others)


def _by_arm(wanted: list[Run], by_run: dict[Run, Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for run in wanted:
        if run in by_run:
            found.setdefault(run.arm, []).append(by_run[run])
    return {arm: found[arm] for arm in dict.fromkeys(run.arm for run in wanted) if arm in found}


def columns(plan: Plan) -> list[str]:
    """The metrics of the main table."""
    return ["greedy", *(f"pass@{k}" for k in plan.ks)]


def parts(base: Record) -> dict[str, Keep]:
    """The subsets of problems that are told apart, by what the base model did on them."""
    solved = {p.id: (p.correct > 0 or p.greedy, p.greedy) for p in base.problems}
    return {
        "all problems": lambda p: True,
        "the base model's cliffs (no sample right)": lambda p: not solved[p.id][0],
        "what the base model solved greedily": lambda p: solved[p.id][1],
    }


def of_difficulty(level: str) -> Keep:
    """The problems of one difficulty."""
    return lambda p: p.difficulty == level


def values(records: list[Record], metric: str, keep: Keep) -> np.ndarray:
    """Shape (S, P): runs by the problems that are kept."""
    mask = np.array([keep(p) for p in records[0].problems])
    return np.stack([record.values(metric)[mask] for record in records])


def mean(records: list[Record], metric: str, keep: Keep) -> Interval:
    """Mean over runs and problems."""
    return two_level_mean(values(records, metric, keep), SEED, (0.0, 1.0))


def difference(records: list[Record], baseline: list[Record], metric: str, keep: Keep) -> Interval:
    """Mean paired difference to the baseline."""
    pair = values(records, metric, keep), values(baseline, metric, keep)
    return two_level_difference(*pair, SEED, (-1.0, 1.0))


def main_table(plan: Plan, results: Results, keep: Keep) -> str:
    """Means of the base model and of every arm, over the problems that are kept."""
    arms = {"base model": [results.base], **results.reported}
    body = [
        [arm, str(len(records)), *(show(mean(records, metric, keep)) for metric in columns(plan))]
        for arm, records in arms.items()
    ]
    return markdown_table(["arm", "runs", *columns(plan)], body)


def difference_tables(plan: Plan, results: Results, keep: Keep) -> list[str]:
    """Every arm minus a baseline, over the problems that are kept: a table for each baseline, no pair twice."""
    tables: list[str] = []
    seen: list[str] = []
    for name in plan.baselines:
        arms = {arm: records for arm, records in results.reported.items() if arm not in (name, *seen)}
        baseline = results.reported.get(name)
        if baseline is None or not arms:
            continue
        seen.append(name)
        body = [
            [arm, *(show(difference(records, baseline, m, keep), signed=True) for m in columns(plan))]
            for arm, records in arms.items()
        ]
        tables.append(markdown_table([f"minus {name}", *columns(plan)], body))
    return tables or [f"No differences yet: {' or '.join(plan.baselines)} and another arm need a reported run."]


def difficulty_table(results: Results, metric: str) -> str:
    """One metric by difficulty, mean over runs."""
    levels = sorted({p.difficulty for p in results.base.problems})
    arms = {"base model": [results.base], **results.reported}
    body = [
        [arm, *(f"{values(records, metric, of_difficulty(level)).mean():.3f}" for level in levels)]
        for arm, records in arms.items()
    ]
    return markdown_table([metric, *levels], body)


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
    head = ["arm", "solve rate of extra rollouts, first -> last 10 steps", "runs with a collapse warning"]
    return markdown_table([*head, "extra rollouts a step", "kept a step", "median seconds a step"], body)
