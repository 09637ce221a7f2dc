"""What two studies agree on that differ in nothing but the weights of their base model."""

from __future__ import annotations

from examples.study.plan import Plan, read_plan
from examples.study.record import Record, differing, read_records
from examples.study.tables import Results, columns, difference, parts, sort_out
from examples.training import ROOT
from recipe.hdpo.evaluation.tables import markdown_table, show


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


def sections(plan: Plan, here: Results, there: Results) -> list[str]:
    """Differences to the first baseline in both studies, for every arm that both have, on each part of the problems."""
    baseline = plan.baselines[0]
    both = [arm for arm in plan.arms if arm in here.reported and arm in there.reported]
    arms = [arm for arm in both if arm != baseline]
    if baseline not in both or not arms:
        return []
    studies = {plan.name: here, plan.repeats: there}
    text = [
        "## From two base models",
        f"The same arms in `{plan.name}` and in `{plan.repeats}`: same command, settings, problems and seeds, other "
        "weights of the base model, whose own samples say which problems are its cliffs.",
    ]
    for number, title in enumerate(parts(here.base)):
        body = []
        for arm in arms:
            for name, results in studies.items():
                keep = list(parts(results.base).values())[number]
                pair = results.reported[arm], results.reported[baseline]
                cells = [show(difference(*pair, metric, keep), signed=True) for metric in columns(plan)]
                body.append([arm, name, str(len(pair[0])), *cells])
        text += [
            f"{title[0].upper()}{title[1:]}:",
            markdown_table([f"minus {baseline}", "study", "runs", *columns(plan)], body),
        ]
    return text
