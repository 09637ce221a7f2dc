"""Numbers of the studies (`docs/results/{sums,collapse}`) and of the runs with a broken privileged prompt.

Means come from the result files of the runs. Intervals come from the result page beside them, which a test compares
with the same files: the page's 10,000 resamples are not drawn again here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np

from examples.study.plan import read_plan
from examples.study.record import Problem, Record
from examples.study.result_files import faults, read_records
from examples.study.results import Results, sort_out
from examples.study.tables import parts, values
from examples.training import ROOT
from scripts.docs_parts.marks import table

RESULTS = ROOT / "docs/results"
BASE = "base"
# The parts of the test problems, in the order of the result page.
PARTS = ("all", "cliffs", "known")

ARMS = {
    "GRPO": "grpo",
    "GRPO, matched rollouts": "matched_grpo",
    "HDPO, λ = 0.01": "hdpo_0.01",
    "HDPO, λ = 0.01, frozen": "frozen_0.01",
    "HDPO, λ = 0.1": "hdpo_0.1",
    "HDPO, λ = 0.1, frozen": "frozen_0.1",
    "HDPO, λ = 1": "hdpo_1",
    "HDPO, λ = 1, frozen": "frozen_1",
    "HDPO, λ = 1, next_step": "next_step_1",
    "HDPO, λ = 1, answer shown": "answer_1",
    "HDPO, λ = 1, answer shown, step gate": "answer_gate_1",
}
DIFFERENCES = {
    "λ = 1 - GRPO": ("hdpo_1", "grpo"),
    "λ = 1, frozen - GRPO": ("frozen_1", "grpo"),
    "λ = 0.1 - GRPO": ("hdpo_0.1", "grpo"),
    "λ = 1 - matched GRPO": ("hdpo_1", "matched_grpo"),
    "λ = 0.1 - λ = 1": ("hdpo_0.1", "hdpo_1"),
    "frozen - drifting, λ = 1": ("frozen_1", "hdpo_1"),
    "next_step - same_step, λ = 1": ("next_step_1", "hdpo_1"),
    "answer - solution shown, λ = 1": ("answer_1", "hdpo_1"),
    "step gate - none, answer shown": ("answer_gate_1", "answer_1"),
}
COLUMNS = {
    **{metric: (metric, "all") for metric in ("greedy", "pass@1", "pass@4", "pass@8")},
    **{"its cliffs: greedy": ("greedy", "cliffs"), "its cliffs: pass@8": ("pass@8", "cliffs")},
    **{"what it solved: greedy": ("greedy", "known"), "what it solved: pass@1": ("pass@1", "known")},
}


@functools.cache
def made(plan: str) -> Results:
    """The records of a study, sorted out."""
    return sort_out(read_plan(plan), read_records(RESULTS / plan / "runs"))


def runs(plan: str, arm: str) -> list[Record]:
    """The reported runs of an arm, or the base model's."""
    results = made(plan)
    return [results.base] if arm == BASE else results.reported[arm]


def _keep(plan: str, part: str) -> Callable[[Problem], bool]:
    if part.startswith("terms="):
        return lambda problem: problem.difficulty == part.removeprefix("terms=")
    return list(parts(made(plan).base).values())[PARTS.index(part)]


def _mean(plan: str, arm: str, metric: str, part: str) -> float:
    return float(values(runs(plan, arm), metric, _keep(plan, part)).mean())


def mean(plan: str, arm: str, metric: str, part: str = "all") -> str:
    """Mean over runs and problems. ``part``: all, cliffs, known, or terms=N."""
    return f"{_mean(plan, arm, metric, part):.3f}"


def gain(plan: str, arm: str, baseline: str, metric: str, part: str = "all", seed: str = "") -> str:
    """An arm's mean, or that of its run with one seed (``seed=N``), minus the baseline's mean over its runs."""
    if seed:
        [run] = [run for run in runs(plan, arm) if run.run.seed == int(seed.removeprefix("seed="))]
        ours = float(values([run], metric, _keep(plan, part)).mean())
    else:
        ours = _mean(plan, arm, metric, part)
    return signed(ours - _mean(plan, baseline, metric, part))


def signed(number: float) -> str:
    """``+0.163``, and never a zero with a minus."""
    return f"{number:+.3f}".replace("-0.000", "+0.000")


def page(plan: str) -> str:
    """The result page of a study."""
    return (RESULTS / plan / "README.md").read_text(encoding="utf-8")


def interval(plan: str, arm: str, baseline: str, metric: str, part: str = "all") -> str:
    """A paired difference with its interval, as the study's result page has it."""
    sections = [section for section in page(plan).split("\n## ") if "| minus grpo | greedy |" in section]
    block = sections[PARTS.index(part)].partition(f"| minus {baseline} |")[2].partition("\n\n")[0].splitlines()
    metrics = [cell.strip() for cell in block[0].strip("| ").split("|")]
    [row] = [line for line in block if line.startswith(f"| {arm} |")]
    return [cell.strip() for cell in row.strip("| ").split("|")][1 + metrics.index(metric)]


def study_faults() -> str:
    """What was wrong with the settings under which the runs at too high a learning rate were made."""
    return "\n\n".join(faults(read_records(RESULTS / "collapse" / "runs")))


def problems(plan: str, part: str = "all") -> str:
    """How many test problems a part has."""
    return str(sum(map(_keep(plan, part), made(plan).base.problems)))


def rate(plan: str, arm: str) -> str:
    """The learning rate of an arm, ``1e-4``."""
    return _rate(made(plan).chosen[arm])


def _rate(lr: float) -> str:
    return re.sub(r"e-0", "e-", f"{lr:.0e}")


def tuned(plan: str, arm: str, lr: str, metric: str, part: str = "all") -> str:
    """Mean over the tuning runs of an arm with one learning rate, or of the base model. ``part``: all, or terms=N."""
    results = made(plan)
    found = [results.base_tuning] if arm == BASE else [r for r in results.tuned[arm] if r.run.lr == float(lr)]
    return f"{values([r for r in found if r], metric, _keep(plan, part)).mean():.3f}"


def curve(plan: str, arm: str, name: str, first: str, last: str, tuned: str = "") -> str:
    """Mean of a training metric over the steps from ``first`` to ``last``, over the reported runs of an arm, or over
    the tuning runs with one learning rate (``lr=3e-4``)."""
    found = runs(plan, arm)
    if tuned:
        found = [r for r in made(plan).tuned[arm] if r.run.lr == float(tuned.removeprefix("lr="))]
    return f"{_curve(found, name, int(first), int(last)):.2f}"


def _curve(records: list[Record], name: str, first: int, last: int) -> float:
    return float(np.mean([value for r in records for step, value in r.curves.get(name, []) if first <= step <= last]))


def warned(plan: str, arm: str) -> str:
    """How many reported runs of an arm warned of a collapsing teacher."""
    return str(sum(any(value for _, value in run.curves["hdpo/teacher_collapse"]) for run in runs(plan, arm)))


def _ran(*arms: str) -> bool:
    return all(arm in made("sums").reported for arm in arms)


def study_table() -> str:
    """Every arm that has runs, and the differences that matter."""
    body = [["base model", *(mean("sums", BASE, *column) for column in COLUMNS.values())]]
    for label, arm in ARMS.items():
        if _ran(arm):
            name = f"{label}, {rate('sums', arm)}{_fewer_seeds(arm)}"
            body.append([name, *(mean("sums", arm, *column) for column in COLUMNS.values())])
    for label, pair in DIFFERENCES.items():
        if _ran(*pair):
            found = (interval("sums", *pair, *column) for column in COLUMNS.values())
            body.append([label + _fewer_seeds(*pair), *found])
    return table(["", *COLUMNS], body)


def _fewer_seeds(*arms: str) -> str:
    """How many seeds there are, where an arm lacks some of the plan's."""
    fewest, wanted = min(len(runs("sums", arm)) for arm in arms), len(read_plan("sums").seeds)
    return "" if fewest == wanted else f" ({fewest} of {wanted} seeds)"


def short_table() -> str:
    """The README's: the arms that tell the story."""
    columns = ("greedy", "pass@1", "pass@8", "its cliffs: pass@8", "what it solved: pass@1")
    shown = ("GRPO", "GRPO, matched rollouts", "HDPO, λ = 0.1", "HDPO, λ = 1", "HDPO, λ = 1, frozen")
    arms = {"base model": BASE, **{label: ARMS[label] for label in shown if _ran(ARMS[label])}}
    body = [[label, *(mean("sums", arm, *COLUMNS[c]) for c in columns)] for label, arm in arms.items()]
    body.append(["λ = 1 - GRPO", *(interval("sums", "hdpo_1", "grpo", *COLUMNS[c]) for c in columns)])
    return table(["", *columns], body)


def broken_prompt_table() -> str:
    """The arms that were trained with a broken privileged prompt, above those that were trained anew."""
    columns = ("greedy", "pass@1", "pass@8", "its cliffs: pass@8", "what it solved: pass@1")
    curves = {"privileged solve rate": "hdpo/privileged_solve_rate", "JSD": "hdpo/jsd_mean"}
    broken = read_records(RESULTS / "broken_prompt" / "runs")
    body = []
    for label, arm in ARMS.items():
        old = [record for record in broken if record.run.arm == arm]
        new = runs("sums", arm) if old and _ran(arm) else []
        for prompt, found in (("broken", old), ("whole", new)):
            if found:
                means = [values(found, m, _keep("sums", part)).mean() for m, part in (COLUMNS[c] for c in columns)]
                last = [_curve(found, name, 51, 60) for name in curves.values()]
                body.append([f"{label}, {_rate(found[0].run.lr)}", prompt, *(f"{x:.3f}" for x in (*means, *last))])
    return table(["", "prompt", *columns, *(f"{name}, last ten steps" for name in curves)], body)


def collapse_table() -> str:
    """What a learning rate that is too high does, to the student and to the teacher."""
    reward, solved = "critic/score/mean", "hdpo/privileged_solve_rate"
    body = [["base model", "", "", "", mean("collapse", BASE, "greedy"), mean("collapse", BASE, "pass@8")]]
    shown = {"GRPO": "grpo", "HDPO, λ = 0.01": "hdpo_0.01", "HDPO, λ = 1": "hdpo_1", "HDPO, λ = 1, frozen": "frozen_1"}
    for label, arm in shown.items():
        [run] = runs("collapse", arm)
        rewards = [curve("collapse", arm, reward, *steps) for steps in (("1", "5"), ("16", "20"))]
        spans = (("1", "5"), ("16", "20"), ("46", "50"), ("56", "60"))
        rates = [curve("collapse", arm, solved, *steps) for steps in spans] if arm != "grpo" else []
        warned = [int(step) for step, value in run.curves.get("hdpo/teacher_collapse", []) if value]
        warning = f"from step {warned[0]}" if warned else "none" if rates else ""
        cells = [", ".join(rewards), ", ".join(rates), warning]
        body.append([label, *cells, *(mean("collapse", arm, metric) for metric in ("greedy", "pass@8"))])
    spans_said = "steps 1-5, 16-20, 46-50, 56-60"
    head = ["at 1e-3", "mean reward, steps 1-5, 16-20", f"privileged solve rate, {spans_said}", "warning"]
    return table([*head, "greedy", "pass@8"], body)
