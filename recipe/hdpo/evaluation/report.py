"""One self-contained HTML file: settings, tables, figures, how to read them. No link leads out of it."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from recipe.hdpo.evaluation.comparison import Comparison
from recipe.hdpo.evaluation.tables import number

_CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff}
body{max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}
th,td{padding:.28rem .7rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #888}
tr.clear td{background:#eef6ee}img{max-width:100%;height:auto}
.note{color:#444}th.text,td.text{text-align:left}td.text{white-space:normal;overflow-wrap:break-word}
"""

_READING = """
<ul class="note">
<li><b>greedy</b>: share of problems whose response at temperature 0 is correct. <b>pass@k</b>: chance that
at least one of k samples is correct, 1 &minus; C(n&minus;c, k)/C(n, k) per problem. <b>maj@k</b>: chance that
the majority of k samples is correct; a tie counts by share, a response without an answer has no vote.</li>
<li><b>Intervals</b> are 95 % bootstrap intervals over problems; with several runs per arm they cover the runs
too (run-to-run variance with Student's t, which is wide for two or three runs).</li>
<li><b>p</b>: sign-flip permutation test of the paired differences, two-sided; with several runs per arm their
run-to-run variance is added. Several metrics and arms are tested and no p-value is corrected for that: of twenty
that measure nothing, one is expected below 0.05, and the best of several arms looks better than it is.</li>
<li><b>won / lost / tied</b>: problems on which the arm's value is above / below / equal to the baseline's.
At pass@n with one run each, they are the problems that only one of the two solved at all.</li>
</ul>
"""


def html_report(
    title: str,
    comparison: Comparison,
    figures: Mapping[str, bytes],
    metrics_files: Mapping[str, Sequence[str]],
) -> str:
    """The report as HTML text; every name that comes from files or the command line is escaped.

    Args:
        title: heading.
        comparison: what was compared.
        figures: caption -> PNG.
        metrics_files: arm -> files of its training curves.
    """
    problems = len(comparison.arms[0].tables[0].ids)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{escape(title)}</title><style>{_CSS}</style></head><body><h1>{escape(title)}</h1>",
        f"<p>{problems} problems. Baseline: <b>{escape(comparison.arms[0].name)}</b>.</p>",
        *[f"<p class='note'>{escape(note)}</p>" for note in comparison.notes],
        "<h2>Results</h2>",
        _means_table(comparison),
    ]
    if comparison.differences:
        parts += ["<h2>Paired differences to the baseline</h2>", _differences_table(comparison)]
    for caption, png in figures.items():
        data = base64.b64encode(png).decode()
        parts += [
            f"<h2>{escape(caption)}</h2>",
            f"<img alt='{escape(caption, quote=True)}' src='data:image/png;base64,{data}'>",
        ]
    parts += ["<h2>How to read this</h2>", _READING, "<h2>Runs</h2>", _runs_table(comparison)]
    for arm, files in metrics_files.items():
        parts.append(f"<p class='note'>Training curves of {escape(arm)}: {escape(', '.join(files))}</p>")
    return "\n".join([*parts, "</body></html>\n"])


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
    """Raise ValueError if a file exists (and ``force`` is not set) or cannot be put there."""
    existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        raise ValueError(f"Already there: {', '.join(existing)}. Pass another --out, or --force to replace them.")
    for path in paths:
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        if not nearest.is_dir():
            raise ValueError(f"--out {path}: {nearest} is a file, not a folder. Pass another --out.")


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr class='{css}'>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for css, cells in rows
    )
    return f"<div class='wide'><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>"


def _means_table(comparison: Comparison) -> str:
    rows = [
        ("", [metric, *(number(comparison.means[arm.name][metric], metric) for arm in comparison.arms)])
        for metric in comparison.metrics
    ]
    head = [f"{arm.name} ({len(arm.runs)} run{'s' if len(arm.runs) > 1 else ''})" for arm in comparison.arms]
    return _table(["metric", *head], rows)


def _differences_table(comparison: Comparison) -> str:
    rows = []
    for d in comparison.differences:
        clear = d["low"] is not None and (d["low"] > 0.0 or d["high"] < 0.0) and d["p"] < 0.05
        cells = [
            f"{d['arm']} - {d['baseline']}",
            d["metric"],
            number(d, d["metric"], signed=True),
            f"{d['p']:.4f}",
        ]
        rows.append(("clear" if clear else "", [*cells, *(str(d[key]) for key in ("won", "lost", "tied"))]))
    table = _table(["arms", "metric", "difference", "p", "won", "lost", "tied"], rows)
    return table + "<p class='note'>Shaded: the interval excludes 0, and p &lt; 0.05.</p>"


def _runs_table(comparison: Comparison) -> str:
    body = ""
    for arm in comparison.arms:
        for run in arm.runs:
            settings = ", ".join(f"{key} = {_short(value)}" for key, value in run.meta.settings.items())
            cells = [arm.name, str(run.folder), str(run.meta.about.get("model", "")), settings]
            body += "<tr>" + "".join(f"<td class='text'>{escape(cell)}</td>" for cell in cells) + "</tr>"
    head = (
        "<tr>" + "".join(f"<th class='text'>{name}</th>" for name in ("arm", "folder", "model", "settings")) + "</tr>"
    )
    return f"<div class='wide'><table><thead>{head}</thead><tbody>{body}</tbody></table></div>"


def _short(value: object) -> str:
    """A digest by its first 12 digits (the whole one is in the run's meta.json)."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", str(value))
