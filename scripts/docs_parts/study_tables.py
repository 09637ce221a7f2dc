"""Tables of the studies: all of them in one, the README's part of it, and those of runs that went wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from examples.language import digits, legs
from examples.study.result_files import faults, read_records
from examples.study.tables import pairs, values
from scripts.docs_parts.marks import table
from scripts.docs_parts.study import (
    BASE,
    RESULTS,
    curve,
    interval,
    keep,
    made,
    mean,
    mean_of_curve,
    rate,
    rate_text,
    runs,
    wanted_seeds,
)

# The plans whose runs are evidence, and what a reader calls their problems.
TASKS = {"sums": "sums", "language": "words"}
ARMS = {
    "GRPO": "grpo",
    "GRPO, matched rollouts": "matched_grpo",
    "HDPO, λ = 0.01": "hdpo_0.01",
    "HDPO, λ = 0.01, frozen": "frozen_0.01",
    "HDPO, λ = 0.1": "hdpo_0.1",
    "HDPO, λ = 0.1, frozen": "frozen_0.1",
    "HDPO, λ = 1": "hdpo_1",
    "HDPO, λ = 1, lower rate": "hdpo_1_slow",
    "HDPO, λ = 1, frozen": "frozen_1",
    "HDPO, λ = 1, step gate": "gate_1",
    "HDPO, λ = 1, next_step": "next_step_1",
    "HDPO, λ = 1, answer shown": "answer_1",
    "HDPO, λ = 1, answer shown, step gate": "answer_gate_1",
    "HDPO, λ = 1, forward KL": "forward_kl_1",
    "HDPO, λ = 0.1, forward KL": "forward_kl_0.1",
    "HDPO, λ = 1, forward KL, step gate": "kl_gate_1",
    "HDPO, λ = 1, forward KL, answer shown": "kl_answer_1",
    "HDPO, λ = 1, forward KL, answer shown, step gate": "kl_answer_gate_1",
    "HDPO, λ falls from 1": "sharpen_1",
    "HDPO, λ falls from 1, forward KL": "kl_sharpen_1",
    "privileged rollouts as SFT, λ = 1": "sft_1",
}
DIFFERENCES = {
    "λ = 1 - GRPO": ("hdpo_1", "grpo"),
    "λ = 1, frozen - GRPO": ("frozen_1", "grpo"),
    "λ = 0.1 - GRPO": ("hdpo_0.1", "grpo"),
    "λ = 1, step gate - GRPO": ("gate_1", "grpo"),
    "λ = 1 - matched GRPO": ("hdpo_1", "matched_grpo"),
    "λ = 0.1 - λ = 1": ("hdpo_0.1", "hdpo_1"),
    "λ = 0.1 - λ = 1, same rate": ("hdpo_0.1", "hdpo_1_slow"),
    "λ = 0.1, frozen - GRPO": ("frozen_0.1", "grpo"),
    "frozen - drifting, λ = 0.1": ("frozen_0.1", "hdpo_0.1"),
    "frozen - drifting, λ = 1": ("frozen_1", "hdpo_1"),
    "frozen - drifting, λ = 1, same rate": ("frozen_1", "hdpo_1_slow"),
    "lower rate - tuned, λ = 1": ("hdpo_1_slow", "hdpo_1"),
    "λ = 1, lower rate - GRPO": ("hdpo_1_slow", "grpo"),
    "next_step - same_step, λ = 1": ("next_step_1", "hdpo_1"),
    "step gate - none, λ = 1": ("gate_1", "hdpo_1"),
    "answer - solution shown, λ = 1": ("answer_1", "hdpo_1"),
    "step gate - none, answer shown": ("answer_gate_1", "answer_1"),
    "forward KL - JSD, λ = 1": ("forward_kl_1", "hdpo_1"),
    "forward KL, λ = 1 - GRPO": ("forward_kl_1", "grpo"),
    "forward KL, λ = 1 - matched GRPO": ("forward_kl_1", "matched_grpo"),
    "λ = 0.1 - λ = 1, forward KL": ("forward_kl_0.1", "forward_kl_1"),
    "step gate - none, forward KL": ("kl_gate_1", "forward_kl_1"),
    "answer - solution shown, forward KL": ("kl_answer_1", "forward_kl_1"),
    "step gate - none, answer shown, forward KL": ("kl_answer_gate_1", "kl_answer_1"),
    "SFT - forward KL, λ = 1": ("sft_1", "forward_kl_1"),
    "falling λ - λ = 1": ("sharpen_1", "hdpo_1"),
    "falling λ - λ = 1, forward KL": ("kl_sharpen_1", "forward_kl_1"),
    "SFT - JSD, λ = 1": ("sft_1", "hdpo_1"),
}
COLUMNS = {
    **{metric: (metric, "all") for metric in ("greedy", "pass@1", "pass@4", "pass@8")},
    **{"its cliffs: greedy": ("greedy", "cliffs"), "its cliffs: pass@8": ("pass@8", "cliffs")},
    **{"what it solved: greedy": ("greedy", "known"), "what it solved: pass@1": ("pass@1", "known")},
}
# The README's rows and columns of the same table.
SHORT_COLUMNS = ("greedy", "pass@1", "pass@8", "its cliffs: pass@8", "what it solved: pass@1")
SHORT_ARMS = (
    *("base model", "GRPO", "GRPO, matched rollouts"),
    *("HDPO, λ = 0.1", "HDPO, λ = 1", "HDPO, λ = 1, lower rate", "HDPO, λ = 1, forward KL"),
)
SHORT_DIFFERENCES = ("λ = 0.1 - GRPO", "λ = 1 - GRPO", "forward KL, λ = 1 - GRPO")


def study_table() -> str:
    """Both studies: every arm that has runs, and the differences that matter."""
    return _evidence({"base model": BASE, **ARMS}, DIFFERENCES, COLUMNS)


def short_table() -> str:
    """The README's: the rows that tell the story."""
    arms = {label: {"base model": BASE, **ARMS}[label] for label in SHORT_ARMS}
    differences = {label: DIFFERENCES[label] for label in SHORT_DIFFERENCES}
    return _evidence(arms, differences, {name: COLUMNS[name] for name in SHORT_COLUMNS})


def _evidence(
    arms: Mapping[str, str], differences: Mapping[str, tuple[str, str]], columns: Mapping[str, tuple[str, str]]
) -> str:
    body = []
    for plan, task in TASKS.items():
        shown = {label: arm for label, arm in arms.items() if _ran(plan, arm)}
        if set(shown.values()) <= {BASE}:
            continue
        for label, arm in shown.items():
            name, seeds = (label, "") if arm == BASE else (f"{label}, {rate(plan, arm)}", _seeds(plan, arm))
            body.append([task, name, seeds, *(mean(plan, arm, *column) for column in columns.values())])
        for label, pair in differences.items():
            if _ran(plan, *pair) and pairs(made(plan), *pair)[0]:
                found = (interval(plan, *pair, *column) for column in columns.values())
                body.append([task, label, _seeds(plan, *pair), *found])
    return table(["task", "", "seeds", *columns], body)


def _ran(plan: str, *arms: str) -> bool:
    return all(arm == BASE or arm in made(plan).reported for arm in arms)


def _seeds(plan: str, *arms: str) -> str:
    """How many seeds an arm has, or two arms both have; and of how many, where the plan has more."""
    count = len(runs(plan, *arms)) if len(arms) == 1 else len(pairs(made(plan), arms[0], arms[1])[0])
    wanted = min(wanted_seeds(plan, arm) for arm in arms)
    return f"{count}" if count == wanted else f"{count} of {wanted}"


def legs_table() -> str:
    """What the models of the study in words write for the legs of an animal, by arm."""
    labels = {label: arm for label, arm in {"base model": BASE, **ARMS}.items() if arm in _legs()}
    return table(["", *legs.HEAD[1:]], [[label, *legs.cells(arm, _legs()[arm])[1:]] for label, arm in labels.items()])


def wrote(arm: str, animals: str, numbers: str) -> str:
    """In which share of the lines of an animal, or of several (``duck+bird``), the models of an arm write this number
    of legs, or one of several (``20+24``)."""
    lines = [_legs()[arm]["animals"][animal.replace("_", " ")] for animal in animals.split("+")]
    found = sum(own.get(number, 0) for own in lines for number in numbers.split("+"))
    return f"{found / sum(sum(own.values()) for own in lines):.2f}"


def _legs() -> dict[str, Any]:
    return json.loads((RESULTS / "language" / "legs.json").read_text())


def digits_table() -> str:
    """The student's chance of the digits of new numbers, over the steps, by the two divergences."""
    found = json.loads((RESULTS / "language" / "digits.json").read_text())
    shown = {label: found[arm] for label, arm in ARMS.items() if arm in digits.PANELS}
    body = [row for label, own in shown.items() for row in digits.rows(label, own)]
    return table(["", *digits.head(next(iter(shown["HDPO, λ = 1"].values())))[1:]], body)


def study_faults() -> str:
    """What was wrong with the settings under which the runs at too high a learning rate were made."""
    return "\n\n".join(faults(read_records(RESULTS / "collapse" / "runs")))


def broken_prompt_table() -> str:
    """The arms that were trained with a broken privileged prompt, above those that were trained anew."""
    curves = {"privileged solve rate": "hdpo/privileged_solve_rate", "JSD": "hdpo/jsd_mean"}
    broken = read_records(RESULTS / "broken_prompt" / "runs")
    body = []
    for label, arm in ARMS.items():
        old = [record for record in broken if record.run.arm == arm]
        again = [name for name in (arm, f"{arm}_slow") if old and _ran("sums", name)]
        for prompt, found in (("broken", old), *(("whole", runs("sums", name)) for name in again)):
            if found:
                shown = (COLUMNS[c] for c in SHORT_COLUMNS)
                means = [values(found, m, keep("sums", part)).mean() for m, part in shown]
                last = [mean_of_curve(found, name, 51, 60) for name in curves.values()]
                body.append([f"{label}, {rate_text(found[0].run.lr)}", prompt, *(f"{x:.3f}" for x in (*means, *last))])
    return table(["", "prompt", *SHORT_COLUMNS, *(f"{name}, last ten steps" for name in curves)], body)


def _curves(arm: str, name: str, spans: Iterable[tuple[str, str]]) -> str:
    return ", ".join(curve("collapse", arm, name, *steps) for steps in spans)


def collapse_table() -> str:
    """What a learning rate that is too high does, to the student and to the teacher."""
    body = [["base model", "", "", "", mean("collapse", BASE, "greedy"), mean("collapse", BASE, "pass@8")]]
    shown = {"GRPO": "grpo", "HDPO, λ = 0.01": "hdpo_0.01", "HDPO, λ = 1": "hdpo_1", "HDPO, λ = 1, frozen": "frozen_1"}
    for label, arm in shown.items():
        [run] = runs("collapse", arm)
        rewards = _curves(arm, "critic/score/mean", (("1", "5"), ("16", "20")))
        spans = (("1", "5"), ("16", "20"), ("46", "50"), ("56", "60"))
        solved = "" if arm == "grpo" else _curves(arm, "hdpo/privileged_solve_rate", spans)
        warned = [int(step) for step, value in run.curves.get("hdpo/teacher_collapse", []) if value]
        warning = f"from step {warned[0]}" if warned else "none" if solved else ""
        cells = [rewards, solved, warning]
        body.append([label, *cells, *(mean("collapse", arm, metric) for metric in ("greedy", "pass@8"))])
    spans_said = "steps 1-5, 16-20, 46-50, 56-60"
    head = ["at 1e-3", "mean reward, steps 1-5, 16-20", f"privileged solve rate, {spans_said}", "warning"]
    return table([*head, "greedy", "pass@8"], body)
