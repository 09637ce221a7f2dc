"""The records of a study, sorted out: which were asked for, and which learning rate each arm takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from examples.study.plan import BASE_RUNS, Plan, Run, choose_learning_rates
from examples.study.record import Record


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
    scores = {record.run: record.mean(plan.select_by) for found in tuned.values() for record in found}
    chosen: dict[str, float] = {}
    for arm in plan.arms:
        alone = replace(plan, arms={arm: plan.arms[arm]})
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
