"""Tables and figures of a study, from its result files alone: no model, no training.

    python -m examples.study.report [--plan sums] [--results docs/results/sums]

Writes README.md and PNGs into RESULTS. Runs that are not there yet are named in it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.study import replication
from examples.study.figures import accuracy_png, curves_png, tuning_png
from examples.study.plan import Plan, read_plan
from examples.study.record import VERSIONS, Record, faults, read_records
from examples.study.tables import (
    Results,
    columns,
    cost_table,
    difference_tables,
    difficulty_table,
    main_table,
    parts,
    sort_out,
    tuning_table,
)
from examples.training import ROOT, say


def main() -> None:
    """Parse the command line and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", default="sums", help="a YAML file of examples/study, without .yaml (default sums)")
    parser.add_argument("--results", type=Path, help="folder of the result files (default docs/results/PLAN)")
    args = parser.parse_args()
    plan = read_plan(args.plan)
    folder = args.results or ROOT / "docs" / "results" / plan.name
    try:
        files = write(plan, read_records(folder / "runs"), folder)
    except ValueError as error:
        sys.exit(f"error: {error}")
    say("report: " + ", ".join(str(path) for path in files))


def write(plan: Plan, records: list[Record], folder: Path) -> list[Path]:
    """Write every file of the report; returns their paths.

    Raises:
        ValueError: see :func:`examples.study.tables.sort_out`.
    """
    results = sort_out(plan, records)
    figures: dict[str, bytes] = {}
    if results.reported:
        figures |= {"accuracy.png": accuracy_png(plan, results), "curves.png": curves_png(plan, results)}
    if results.tuned:
        figures["tuning.png"] = tuning_png(plan, results)
    for name, content in figures.items():
        (folder / name).write_bytes(content)
    (folder / "README.md").write_text(text(plan, records, results))
    return [folder / "README.md", *(folder / name for name in figures)]


def text(plan: Plan, records: list[Record], results: Results) -> str:
    """The report as Markdown."""
    sections = [f"# Study: {plan.name}", *faults(records), _about(plan, results), *_versions(records)]
    if results.reported:
        sections += _reported(plan, results)
    other = replication.read_other(plan, records)
    if other is not None:
        sections += replication.sections(plan, results, other)
    if results.tuned:
        sections += [
            "## Tuning",
            f"{_tuned_arms(plan)} is run with every learning rate, on seeds {list(plan.tuning_seeds)} and "
            f"{len(results.tuned[next(iter(results.tuned))][0].problems)} problems, which are used for nothing else. "
            f"The best {plan.select_by} of an arm is bold once all are done, and is taken; in parentheses the solve "
            f"rate of its extra rollouts over the last ten steps.{_base_tuning(plan, results)}{_edges(plan, results)}",
            tuning_table(plan, results),
            "![tuning](tuning.png)",
        ]
    return "\n\n".join([*sections, _repeat(plan, records)]) + "\n"


def _reported(plan: Plan, results: Results) -> list[str]:
    sections = ["![accuracy](accuracy.png)"]
    for title, keep in parts(results.base).items():
        count = sum(map(keep, results.base.problems))
        sections.append(f"## {title[0].upper()}{title[1:]} ({count} of {len(results.base.problems)})")
        if 0 < count < len(results.base.problems):
            sections.append(
                "Chosen by the base model's own samples, so its row is what it is by construction: compare the arms."
            )
        if count:
            sections += [main_table(plan, results, keep), *difference_tables(plan, results, keep)]
    metrics = ("greedy", f"pass@{max(plan.ks)}")
    sections += ["## By difficulty", *(difficulty_table(results, metric) for metric in metrics)]
    return [*sections, "## Training", "![curves](curves.png)", cost_table(results)]


def _versions(records: list[Record]) -> list[str]:
    """Which runs were made under which version, where there are several."""
    lines = []
    for key in VERSIONS:
        runs: dict[str, list[str]] = {}
        for record in records:
            runs.setdefault(str(record.settings[key]), []).append(record.run.name)
        if len(runs) > 1:
            shares = "; ".join(f"{version}: {', '.join(names)}" for version, names in runs.items())
            lines.append(f"**Made under several versions** ({key}): {shares}.")
    return lines


def _tuned_arms(plan: Plan) -> str:
    if not plan.rates:
        return "Every arm"
    given = ", ".join(f"{arm} {rate:g}" for arm, rate in plan.rates.items())
    return f"Rates from elsewhere (see the top of this page): {given}. Each of the other arms"


def _base_tuning(plan: Plan, results: Results) -> str:
    if results.base_tuning is None:
        return ""
    return f" The untrained base model has {results.base_tuning.mean(plan.select_by):.3f} on these problems."


def _edges(plan: Plan, results: Results) -> str:
    """Whose best rate might lie outside the grid."""
    rates = sorted(plan.learning_rates)
    at = {rate: [arm for arm, chosen in results.chosen.items() if chosen == rate] for rate in (rates[0], rates[-1])}
    low, high = at[rates[0]], at[rates[-1]]
    said = ""
    if low:
        said += (
            f" The best rate of {', '.join(low)} is the lowest that was tried; at a rate of 0 an arm is the base model."
        )
    if high:
        said += f" The best rate of {', '.join(high)} is the highest that was tried, and a higher one might be better."
    return said


def _about(plan: Plan, results: Results) -> str:
    seeds = {arm: len(runs) for arm, runs in results.reported.items()}
    tuned = sum(map(len, results.tuned.values())), len(plan.tuning_runs())
    reported = sum(seeds.values()), len(plan.arms) * len(plan.seeds)
    lines = [
        f"{plan.steps} training steps; {len(results.base.problems)} test problems, {plan.samples} samples each and a "
        f"greedy one; runs per arm: {', '.join(f'{arm} {n}' for arm, n in seeds.items()) or 'none yet'}. "
        "Intervals are 95 %: over problems and, where an arm has several runs, over runs. pass@k is the unbiased "
        "estimate.",
    ]
    if len(results.reported) > 2:
        lines.append(
            f"{len(results.reported)} arms are compared by {len(columns(plan))} metrics on {len(parts(results.base))} "
            "sets of problems, and no interval is corrected for that: the best of several arms looks better than it "
            "is, and what neighbouring arms share can be trusted more."
        )
    if (tuned[0], reported[0]) != (tuned[1], reported[1]):
        tuning = f"{tuned[0]} of {tuned[1]} tuning runs and " if tuned[1] else ""
        lines.append(f"**Not finished:** {tuning}{reported[0]} of {reported[1]} reported runs are done.")
    if plan.note:
        lines.append(plan.note.strip())
    if results.others:
        names = ", ".join(record.run.name for record in results.others)
        lines.append(f"Not part of the plan, and in no table: {names}.")
    return "\n\n".join(lines)


def _repeat(plan: Plan, records: list[Record]) -> str:
    hours = sum(sum(r.seconds.values()) for r in records) / 3600
    versions = sorted({f"{k} {v}" for r in records for k, v in r.about["versions"].items()})
    cores = sorted({str(r.about["cores"]) for r in records})
    commits = sorted({str(r.about["commit"])[:10] for r in records if r.about.get("commit")})
    return "\n\n".join(
        [
            "## Repeat it",
            f"`python -m examples.study.run --plan {plan.name} --results outputs/{plan.name}` repeats "
            f"{'it all' if not plan.rates else 'it at the rates from elsewhere'}; without "
            "`--results` it runs whatever has no file in `runs/` here, and writes this page. "
            f"The {len(records)} runs here took {hours:.1f} hours on {' or '.join(cores)} cores, without a GPU. "
            "Each file in `runs/` has the counts of every problem (id, difficulty, samples, correct, greedy), the "
            "training curves, the overrides on top of `examples/cpu_demo.sh`, and the wall time.",
            f"Versions: {', '.join(versions)}. Commits of this repository: {', '.join(commits) or 'unknown'}.",
        ]
    )


if __name__ == "__main__":
    main()
