"""Where in a new number a divergence teaches: the student's chance of each digit of kept trajectories, over a run.

    python -m examples.language.digits STUDY [--json FILE] [--plot FILE]

STUDY is the folder of models and logs of `make study PLAN=language`; the kept trajectories of its reported runs are
read there (`rollouts/hdpo_kept`). In `shrimp: 4*10=40` the digits of 10 are told apart: the student is sure of another
first digit, and not so sure of what comes after it. Each chance is the plain student's, before the step's update.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from data_preprocess.word_families import USUAL_LEGS
from examples.language.legs import RUN, legs
from examples.study.plan import read_plan
from recipe.hdpo.cliffs.files import Line, Run, find_run
from recipe.hdpo.evaluation.plots import png_bytes, tidy
from recipe.hdpo.evaluation.tables import text_table

PLACES = ("first digit of two", "second digit of two", "only digit")
COLOURS = dict(zip(PLACES, ("#D55E00", "#0072B2", "#E69F00"), strict=True))
# The arms that are drawn.
PANELS = {"hdpo_1": "Jensen-Shannon", "forward_kl_1": "forward KL", "forward_kl_0.1": "forward KL, λ = 0.1"}
SPANS = 4
# {"first", "last": steps; "tokens": how many; "chance": their mean, None of none}
Span = dict[str, Any]


def places(texts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The digits of numbers of legs that only new animals have: index of the token, and which of :data:`PLACES`.

    Args:
        texts: the tokens of a response, each digit one of its own.
    """
    unusual = {str(number) for number in set(legs().values()) - USUAL_LEGS}
    named = False
    for i, text in enumerate(texts):
        named = text != "\n" and (named or text == ":")
        if not named or text != "*":
            continue
        digits: list[str] = []
        for following in texts[i + 1 :]:
            if not following.isdigit():
                break
            digits.append(following)
        if "".join(digits) in unusual:
            yield from zip(range(i + 1, i + 3), PLACES[:2] if len(digits) == 2 else PLACES[2:], strict=False)


def chances(line: Line) -> Iterator[tuple[str, float]]:
    """Of a kept trajectory: place, and the student's probability of the token that stands there."""
    told: dict[str, Any] = line.get("hdpo_tokens") or {"texts": (), "at": ()}
    at = {index: i for i, index in enumerate(told["at"])}
    for index, place in places(told["texts"]):
        if index in at:
            top = {int(id_): q for kind in ("teacher_top", "student_top") for id_, _, q in told[kind][at[index]]}
            if (chance := top.get(told["ids"][index])) is not None:
                yield place, chance


def read_arms(study: Path, steps: int) -> dict[str, dict[str, list[Span]]]:
    """By arm and place, a :data:`Span` for each quarter of the steps, over all runs of the arm.

    Args:
        study: the folder of the study's runs.
        steps: training steps of each.

    Raises:
        ValueError: no run has kept trajectories there, or a file is broken.
    """
    sums: dict[str, dict[tuple[str, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for folder in sorted(study.glob("report-*/rollouts/hdpo_kept")):
        run, match = Run(find_run(folder.parent)), RUN.fullmatch(folder.parents[1].name)
        if match is None:
            continue
        for step in run.steps:
            for line in run.kept(step).values():
                for place, chance in chances(line):
                    sums[match["arm"]][place, (step - 1) * SPANS // steps].append(chance)
    if not sums:
        raise ValueError(f"no kept trajectories (report-*/rollouts/hdpo_kept) in {study} hold a new animal's number")
    return {
        arm: {
            place: [
                {
                    "first": 1 + span * steps // SPANS,
                    "last": (span + 1) * steps // SPANS,
                    "tokens": len(own[place, span]),
                    "chance": sum(own[place, span]) / len(own[place, span]) if own[place, span] else None,
                }
                for span in range(SPANS)
            ]
            for place in PLACES
        }
        for arm, own in sums.items()
    }


def head(spans: Sequence[Span]) -> list[str]:
    """Columns of the table."""
    return ["arm", "the student's chance of", *(f"steps {span['first']}-{span['last']}" for span in spans)]


def rows(arm: str, found: dict[str, list[Span]]) -> list[list[str]]:
    """An arm's rows: a place each, with the number of tokens in brackets."""
    return [
        [arm, place, *(f"{s['chance']:.3f} ({s['tokens']})" if s["tokens"] else "" for s in spans)]
        for place, spans in found.items()
    ]


def plot(arms: Mapping[str, Mapping[str, Sequence[Span]]]) -> bytes:
    """A PNG: the chance of each place over the steps, an arm of :data:`PANELS` in each panel."""
    figure = Figure(figsize=(10.8, 3.2), layout="constrained")
    for axes, (arm, title) in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS.items(), strict=True):
        for place, spans in arms.get(arm, {}).items():
            shown = [span for span in spans if span["tokens"]]
            middles = [(span["first"] + span["last"]) / 2 for span in shown]
            axes.plot(middles, [span["chance"] for span in shown], "o-", ms=4, color=COLOURS[place], label=place)
        axes.set(title=title, xlabel="training step", ylim=(-0.03, 1.03))
        tidy(axes)
    figure.axes[0].set_ylabel("the student's chance of the digit")
    figure.axes[0].legend(frameon=False, fontsize=9)
    return png_bytes(figure)


def main(argv: list[str] | None = None) -> int:
    """Print the table; with ``--json FILE`` write its figures too, with ``--plot FILE`` draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args(argv)
    try:
        arms = read_arms(args.study, read_plan("language").steps)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    spans = next(iter(next(iter(arms.values())).values()))
    print(text_table(head(spans), [row for arm, found in arms.items() for row in rows(arm, found)]))
    if args.json:
        args.json.write_text(json.dumps(arms, indent=1) + "\n")
    if args.plot:
        args.plot.write_bytes(plot(arms))
    return 0


if __name__ == "__main__":
    sys.exit(main())
