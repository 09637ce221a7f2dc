"""Compare evaluated arms problem by problem and write one self-contained HTML report.

    python -m recipe.hdpo.compare grpo=results/grpo-1,results/grpo-2 hdpo=results/hdpo-1,results/hdpo-2 \\
        --out report.html --train-metrics grpo=logs/grpo.jsonl hdpo=logs/hdpo.jsonl

The first arm is the baseline. Several folders of an arm are runs of one method with other training seeds.
Next to report.html come report_*.svg (the figures) and report.json (the numbers).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from recipe.hdpo.evaluation.comparison import Comparison, compare, load_arms
from recipe.hdpo.evaluation.tables import number, text_table
from recipe.hdpo.evaluation.training_log import read_training_log
from recipe.hdpo.evaluation.verdict import verdicts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (2 after an error that the user can mend)."""
    args = parser().parse_args(argv)
    try:
        run(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m recipe.hdpo.compare", description="Compare evaluated arms on the same problems."
    )
    p.add_argument("arms", nargs="+", metavar="ARM=DIR[,DIR...]", help="result folders; the first arm is the baseline")
    p.add_argument("--out", required=True, type=Path, help="the HTML report; figures and numbers go next to it")
    p.add_argument("--k", type=int, nargs="+", help="sizes k of pass@k and maj@k (default 1, 2, 4, ... <= n)")
    p.add_argument("--train-metrics", nargs="+", default=[], metavar="ARM=FILE[,FILE...]", help="verl file logger")
    p.add_argument("--pages", nargs="+", default=[], metavar="NAME=FILE", help="other pages that the report links to")
    p.add_argument("--title", default="HDPO evaluation", help="heading of the report")
    p.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    p.add_argument("--force", action="store_true", help="replace an existing report")
    return p


def run(args: argparse.Namespace) -> Comparison:
    """Everything that the command does; returns the comparison."""
    from recipe.hdpo.evaluation.plots import difficulty_svg, passk_svg, training_svg
    from recipe.hdpo.evaluation.report import check_writable, html_report, write_report

    if args.out.suffix != ".html":
        raise ValueError(f"--out {args.out}: must end in .html; figures and numbers are put next to it.")
    names = {part: args.out.with_name(f"{args.out.stem}_{part}.svg") for part in ("passk", "difficulty", "training")}
    check_writable([args.out, args.out.with_suffix(".json"), *names.values()], args.force)
    metrics_files = dict(_named_paths(args.train_metrics, "--train-metrics"))
    pages = _pages(args.pages)
    training = {arm: [read_training_log(file) for file in files] for arm, files in metrics_files.items()}
    arms = _named_paths(args.arms, "ARM=DIR")
    if len(arms) < 2:
        raise ValueError(
            f"{arms[0][0]} is the only arm, so there is nothing to compare: name another, ARM=DIR. The numbers of one "
            f"folder are in its summary.json."
        )
    strangers = sorted(set(training) - {name for name, _ in arms})
    if strangers:
        raise ValueError(f"--train-metrics names {', '.join(strangers)}; the arms are {', '.join(dict(arms))}.")
    # In the order of the arms, so that an arm has one colour in all figures.
    training = {name: training.get(name, []) for name, _ in arms} if training else {}
    comparison = compare(load_arms(arms, args.k), args.seed)

    figures = {
        "pass@k": (names["passk"], passk_svg(comparison)),
        "Accuracy by difficulty": (names["difficulty"], difficulty_svg(comparison)),
    }
    curves = training_svg(training) if training else None
    if curves:
        figures["Training (bold: moving average over a tenth of the steps)"] = (names["training"], curves)
    elif training:
        print("The training logs hold none of the metrics that are plotted; the report has no training curves.")
    html = html_report(
        args.title,
        comparison,
        {caption: svg for caption, (_, svg) in figures.items()},
        metrics_files,
        args.out.parent,
        pages,
    )
    files = {path: svg.encode() for path, svg in figures.values()}
    numbers = {"verdicts": dict(verdicts(comparison)), **comparison.as_dict(args.out.parent)}
    files[args.out.with_suffix(".json")] = (json.dumps(numbers, indent=2) + "\n").encode()
    files[args.out] = html.encode()
    write_report(files, args.force)
    print(main_table(comparison))
    print("\n" + "\n".join(f"{arm} {said}" for arm, said in verdicts(comparison)))
    print("\nReport: " + "\n        ".join(str(path) for path in reversed(files)))
    print(f"Next: open {args.out} in a browser; it needs no other file.")
    return comparison


def main_table(comparison: Comparison) -> str:
    """Means of all arms, then the paired differences, as plain text."""
    names = [arm.name for arm in comparison.arms]
    means = [[m, *(number(comparison.means[name][m], m) for name in names)] for m in comparison.metrics]
    text = [text_table(["mean", *(f"{arm.name} ({len(arm.runs)} run(s))" for arm in comparison.arms)], means)]
    if comparison.differences:
        rows = [
            [
                f"{d['arm']} - {d['baseline']}",
                d["metric"],
                number(d, d["metric"], signed=True),
                f"{d['p']:.4f}",
                *(str(d[key]) for key in ("won", "lost", "tied")),
            ]
            for d in comparison.differences
        ]
        text.append(text_table(["paired difference", "metric", "95 % interval", "p", "won", "lost", "tied"], rows))
    return "\n\n".join([*text, "\n".join(comparison.notes)])


def _pages(texts: Sequence[str]) -> dict[str, Path]:
    pages = {}
    for name, paths in _named_paths(texts, "--pages"):
        if len(paths) > 1:
            raise ValueError(f"--pages {name}: one file a name, not {len(paths)}.")
        if not paths[0].is_file():
            raise ValueError(f"--pages {name}={paths[0]}: there is no such file.")
        pages[name] = paths[0]
    return pages


def _named_paths(texts: Sequence[str], what: str) -> list[tuple[str, list[Path]]]:
    """``NAME=PATH,PATH`` each -> [(name, paths)]."""
    named: list[tuple[str, list[Path]]] = []
    for text in texts:
        name, _, paths = text.partition("=")
        if not name or not paths or not all(paths.split(",")):
            raise ValueError(f"{text!r} is not of the form {what if '=' in what else 'ARM=FILE[,FILE...]'}.")
        if name in dict(named):
            raise ValueError(f"{name} is given twice in {what}. Join its paths with commas: {name}=PATH,PATH.")
        named.append((name, [Path(path) for path in paths.split(",")]))
    return named


if __name__ == "__main__":
    sys.exit(main())
