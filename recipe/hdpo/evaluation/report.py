"""One self-contained HTML file: what came out, tables, figures, settings, how to read them. It loads nothing.

The page is ``report.html``, a Jinja2 template; here stands what fills it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from markupsafe import Markup

from recipe.hdpo.evaluation.comparison import Comparison, path_from
from recipe.hdpo.evaluation.leaks import PRINTED, measured_otherwise, recorded_leakage
from recipe.hdpo.evaluation.records import META, RESULT_FILES
from recipe.hdpo.evaluation.tables import number
from recipe.hdpo.evaluation.templates import page_templates
from recipe.hdpo.evaluation.verdict import outcome, verdicts
from recipe.hdpo.evaluation.wording import counted

TEMPLATE = "report.html"
# Column heads, and rows as (CSS class, cells).
Table = tuple[list[str], list[tuple[str, list[str]]]]

_ENVIRONMENT = page_templates(Path(__file__).parent)


def html_report(
    title: str,
    comparison: Comparison,
    figures: Mapping[str, str],
    metrics_files: Mapping[str, Sequence[Path]],
    beside: Path = Path(),
    pages: Mapping[str, Path] = MappingProxyType({}),
) -> str:
    """The report as HTML text; every name that comes from files or the command line is escaped.

    Args:
        title: heading.
        comparison: what was compared.
        figures: caption -> SVG.
        metrics_files: arm -> files of its training curves.
        beside: the folder that the report goes to; other files are named from there.
        pages: name -> another page that the report links to.
    """
    return _ENVIRONMENT.get_template(TEMPLATE).render(
        title=title,
        problems=counted(len(comparison.arms[0].tables[0].ids), "problem"),
        baseline=comparison.arms[0].name,
        verdicts=verdicts(comparison),
        notes=comparison.notes,
        means=_means_table(comparison),
        differences=_differences_table(comparison),
        # Drawn here, with every text in them escaped.
        leaks=_leaks_table(comparison),
        figures={caption: Markup(svg) for caption, svg in figures.items()},
        runs=_runs_table(comparison, beside),
        metrics_files={arm: [path_from(beside, file) for file in files] for arm, files in metrics_files.items()},
        pages={name: path_from(beside, path) for name, path in pages.items()},
    )


def write_report(files: Mapping[Path, bytes], force: bool = False) -> None:
    """Write all files, each in one step, and make their folders; refuses all if one exists without ``force``.

    Raises:
        ValueError: a file exists, or cannot be put there.
    """
    check_writable(list(files), force)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_bytes(content)
        os.replace(part, path)


def check_writable(paths: Sequence[Path], force: bool) -> None:
    """Raise ValueError if a file is there (without ``force``), is a result folder's own, or cannot be put there."""
    own = [str(path) for path in paths if path.name in RESULT_FILES and (path.parent / META).exists()]
    if own:
        raise ValueError(f"--out would replace {', '.join(own)}, the results themselves. Pass another --out.")
    existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        raise ValueError(f"Already there: {', '.join(existing)}. Pass another --out, or --force to replace them.")
    for path in paths:
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        if not nearest.is_dir():
            raise ValueError(f"--out {path}: {nearest} is a file, not a folder. Pass another --out.")


def _means_table(comparison: Comparison) -> Table:
    head = [f"{arm.name} ({len(arm.runs)} run{'s' if len(arm.runs) > 1 else ''})" for arm in comparison.arms]
    rows = [
        ("", [metric, *(number(comparison.means[arm.name][metric], metric) for arm in comparison.arms)])
        for metric in comparison.metrics
    ]
    return ["metric", *head], rows


def _differences_table(comparison: Comparison) -> Table:
    rows = []
    for d in comparison.differences:
        cells = [f"{d['arm']} - {d['baseline']}", d["metric"], number(d, d["metric"], signed=True), f"{d['p']:.4f}"]
        rows.append((outcome(d), [*cells, *(str(d[key]) for key in ("won", "lost", "tied"))]))
    return ["arms", "metric", "difference", "p", "won", "lost", "tied"], rows


def _leaks_table(comparison: Comparison) -> Table:
    """Of each arm the mean over the runs whose results hold these figures."""
    found = {arm.name: [leaks for run in arm.runs if (leaks := recorded_leakage(run))] for arm in comparison.arms}
    rows = []
    for name, said in PRINTED.items():
        if reason := measured_otherwise(name, [run for runs in found.values() for run in runs if run.get(name)]):
            rows.append(("", [said, *(reason if arm == next(iter(found)) else "" for arm in found)]))
            continue
        known = {arm: [each[name]["estimate"] for each in runs if each.get(name)] for arm, runs in found.items()}
        if any(known.values()):
            cells = [f"{sum(values) / len(values):.3f}" if values else "?" for values in known.values()]
            rows.append(("", [said, *cells]))
    return ["share of correct responses", *found], rows


def _runs_table(comparison: Comparison, beside: Path) -> Table:
    rows = []
    for arm in comparison.arms:
        for run in arm.runs:
            settings = ", ".join(f"{key} = {_short(value)}" for key, value in run.meta.settings.items())
            model = str(run.meta.about.get("model", ""))
            model = path_from(beside, model) if Path(model).exists() else model
            rows.append(("", [arm.name, path_from(beside, run.folder), model, settings]))
    return ["arm", "folder", "model", "settings"], rows


def _short(value: object) -> str:
    """A digest by its first 12 digits (the whole one is in the run's meta.json)."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", str(value))
