"""What two studies agree on that differ in nothing but the weights of their base model."""

from __future__ import annotations

from examples.study.plan import Plan, read_plan
from examples.study.record import Record, differing, read_records
from examples.study.results import Results, sort_out
from examples.study.tables import columns, differences, parts, signed
from examples.training import ROOT
from recipe.hdpo.evaluation.tables import markdown_table


def read_other(plan: Plan, records: list[Record]) -> Results | None:
    """The results of the study that a plan repeats; None where it repeats none.

    Raises:
        ValueError: that study has no results, or was made with other settings: more than the base model differs.
    """
    if not plan.repeats:
        return None
    others = read_records(ROOT / "docs" / "results" / plan.repeats / "runs")
    results = sort_out(read_plan(plan.repeats), others)
    changed = differing(records[0].settings, others[0].settings)
    if changed:
        raise ValueError(f"{plan.name} repeats {plan.repeats}, but was made with other settings: {', '.join(changed)}")
    return results


def tables(plan: Plan, here: Results, there: Results) -> dict[str, str]:
    """Differences to the first baseline in both studies, for every arm that both have, by part of the problems; none
    where there is nothing to compare."""
    baseline = plan.baselines[0]
    both = [arm for arm in plan.arms if arm in here.reported and arm in there.reported]
    compared = [arm for arm in both if arm != baseline]
    if baseline not in both or not compared:
        return {}
    studies = {plan.name: here, plan.repeats: there}
    keeps = {name: list(parts(results.base).values()) for name, results in studies.items()}
    found = {}
    for number, title in enumerate(parts(here.base)):
        by_study = {n: differences(plan, r, baseline, compared, keeps[n][number]) for n, r in studies.items()}
        body = [
            [arm, name, str(len(studies[name].reported[arm])), *signed(by_study[name][arm])]
            for arm in compared
            for name in studies
        ]
        found[title] = markdown_table([f"minus {baseline}", "study", "runs", *columns(plan)], body)
    return found
