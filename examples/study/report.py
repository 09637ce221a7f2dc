"""Tables and figures of a study, from its result files alone: no model, no training.

    python -m examples.study.report [--plan sums] [--results docs/results/sums]

Writes README.md (the template is report.md.j2) and PNGs into RESULTS. Runs that are not there yet are named in it.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import jinja2

from examples.study import tables
from examples.study.figures import accuracy_png, curves_png, tuning_png
from examples.study.plan import Plan, read_plan
from examples.study.record import Record
from examples.study.result_files import VERSIONS, faults, read_records
from examples.study.results import Results, sort_out
from examples.study.tables import Part, columns, measured
from examples.study.tasks import TASKS
from examples.training import ROOT, say
from recipe.hdpo.evaluation.report import write_report

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)


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
        ValueError: see :func:`examples.study.results.sort_out`.
    """
    results = sort_out(plan, records)
    parts = measured(plan, results)
    files = {"README.md": text(plan, records, results, parts).encode()}
    if results.reported:
        files |= {"accuracy.png": accuracy_png(plan, parts), "curves.png": curves_png(plan, results)}
    if results.tuned:
        files["tuning.png"] = tuning_png(plan, results)
    paths = {folder / name: content for name, content in files.items()}
    write_report(paths, force=True)
    return list(paths)


def text(plan: Plan, records: list[Record], results: Results, parts: list[Part]) -> str:
    """The report as Markdown."""
    rates = sorted(plan.learning_rates)
    at = {rate: [arm for arm, chosen in results.chosen.items() if chosen == rate] for rate in rates}
    page = _ENVIRONMENT.get_template("report.md.j2").render(
        plan=plan,
        records=records,
        results=results,
        parts=parts,
        metrics=columns(plan),
        problems=len(results.base.problems),
        untrained=TASKS[plan.task].untrained,
        faults=faults(records),
        versions=_versions(records),
        tuned=sum(map(len, results.tuned.values())),
        wanted_tuned=len(plan.tuning_runs()),
        reported=sum(map(len, results.reported.values())),
        wanted_reported=len(plan.report_runs(dict.fromkeys(plan.arms, 0.0))),
        lowest=at[rates[0]],
        highest=at[rates[-1]],
        hours=sum(sum(r.seconds.values()) for r in records) / 3600,
        cores=sorted({str(r.about["cores"]) for r in records}),
        packages=sorted({f"{k} {v}" for r in records for k, v in r.about["versions"].items()}),
        commits=sorted({str(r.about["commit"])[:10] for r in records if r.about.get("commit")}),
        tables=tables,
    )
    # What is left out leaves empty lines.
    return re.sub(r"\n{3,}", "\n\n", page)


def _versions(records: list[Record]) -> dict[str, dict[str, list[str]]]:
    """The arms with runs of each version, by the setting that names it, where there are several."""
    found: dict[str, dict[str, list[str]]] = {key: {} for key in VERSIONS}
    for key, arms in found.items():
        for record in records:
            of_version = arms.setdefault(str(record.settings[key]), [])
            if record.run.arm not in of_version:
                of_version.append(record.run.arm)
    return {key: arms for key, arms in found.items() if len(arms) > 1}


if __name__ == "__main__":
    main()
