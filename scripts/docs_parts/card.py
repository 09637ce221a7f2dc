"""Tables of `docs/gpu.md`, from the figures of `python -m benchmarks.gpu` (`docs/results/gpu/CARD/PART.json`)."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from scripts.docs_parts.marks import table
from scripts.docs_parts.study import RESULTS

CARD = "h200"
VERSIONS = ("torch", "cuda", "triton", "transformers", "verl", "driver")


def part(name: str) -> dict[str, Any]:
    """The figures of a part that ran to its end."""
    content = json.loads((RESULTS / "gpu" / CARD / f"{name}.json").read_text())
    if content["status"] != "complete":
        raise ValueError(f"docs/results/gpu/{CARD}/{name}.json: {content['status']}")
    return content


def card(key: str) -> str:
    """A figure of the update: ``card overhead_25`` is HDPO's time at 25 % cliffs over GRPO's."""
    updates, divergences = part("updates"), part("divergences")["figures"]
    seconds = {arm: figures.get("seconds") for arm, figures in updates["figures"].items()}
    ours, pytorch, verl = (divergences[f"32768 rows: {name}"] for name in ("ours", "ours, PyTorch", "verl, full"))
    setting, wanted = updates["setting"], updates["setting"]["prompts_wanted"]
    found = {
        "overhead_25": f"{seconds['HDPO, 25 % cliffs'] / seconds['GRPO']:.2f}",
        "overhead_100": f"{seconds['HDPO, 100 % cliffs'] / seconds['GRPO']:.2f}",
        "rollouts": f"{setting['rollouts']}",
        "tokens": f"{setting['tokens']:,}",
        "rollouts_wanted": f"{setting['rollouts'] // setting['prompts'] * wanted}",
        "kernels_vs_pytorch": f"{ours['milliseconds'] / pytorch['milliseconds']:.2f}",
        "vs_verl": f"{ours['milliseconds'] / verl['milliseconds']:.2f}",
        "copy_rate": f"{part('divergences')['setting']['copy_gb_per_s'] / 1e3:.2f}",
    }
    return found[key]


def environment_table() -> str:
    """The card and the versions; all parts that are there have to be of the same."""
    found = [part(path.stem)["environment"] for path in sorted((RESULTS / "gpu" / CARD).glob("*.json"))]
    if any(other != found[0] for other in found):
        raise ValueError(f"docs/results/gpu/{CARD}: the parts were measured in different environments")
    head = ["card", "memory, GiB", *VERSIONS, "Python"]
    return table(head, [[str(found[0][key]) for key in ("card", "memory_gib", *VERSIONS, "python")]])


def correct_table() -> str:
    """Cases and worst errors by dtype and way of computing."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, figures in part("correct")["figures"].items():
        dtype = "bf16" if ", bf16" in name else "fp32"
        way = next((way for way in ("kernels", "PyTorch", "overwritten", "log-prob") if way in name), "")
        rows.setdefault((dtype, way), []).append(figures)
    labels = {
        "kernels": "by the kernels",
        "PyTorch": "by PyTorch alone",
        "overwritten": "logits overwritten in backward",
        "log-prob": "beside verl's log-probabilities",
    }
    body = []
    for (dtype, way), cases in sorted(rows.items(), key=lambda row: (row[0][0], list(labels).index(row[0][1]))):
        value = max((case["value_error"] for case in cases if "value_error" in case), default=None)
        gradient = max((case["gradient_error"] for case in cases if "gradient_error" in case), default=None)
        holding = sum(case["holds"] for case in cases)
        errors = ["" if error is None else f"{error:.1e}" for error in (value, gradient)]
        body.append([dtype, labels[way], f"{holding} of {len(cases)}", *errors])
    return table(["logits", "what", "cases that hold", "worst value error", "worst gradient error"], body)


def divergences_table() -> str:
    """Time, memory and share of the limit by number of rows."""
    figures = part("divergences")["figures"]
    sizes = list(dict.fromkeys(name.split(" rows: ")[0] for name in figures))
    names = list(dict.fromkeys(name.split(" rows: ")[1] for name in figures if "top-k" not in name))
    names = [*sorted(names, key=lambda name: not name.startswith("ours")), "teacher's top-k"]
    body = []
    for name in names:
        row = [name]
        for size in sizes:
            found = figures.get(f"{size} rows: {name}", {})
            if found.get("milliseconds") is None:
                row += ["does not fit", "", ""]
                continue
            share = found.get("share_of_limit")
            row += [
                f"{found['milliseconds']:.1f} ms",
                f"{found['extra_gib']:.2f} GiB",
                "" if share is None else f"{share:.2f}",
            ]
        body.append(row)
    head = ["", *(f"{int(size):,} rows{what}" for size in sizes for what in ("", ": memory", ": share of limit"))]
    return table(head, body)


def updates_table() -> str:
    """Time and memory of an update by arm."""
    figures = {arm: found for arm, found in part("updates")["figures"].items() if arm != "losses"}
    grpo = figures["GRPO"]["seconds"]
    body = []
    for arm, found in figures.items():
        teacher = found.get("teacher_pass_seconds")
        row = [arm, f"{found['seconds']:.2f} s", f"{found['seconds'] / grpo:.2f}"]
        body.append([*row, "" if teacher is None else f"{teacher:.2f} s", f"{found['peak_gib']:.1f} GiB"])
    return table(["update", "time", "of GRPO's", "of it the teacher pass", "peak memory"], body)


def waits_table() -> str:
    """Waits of one update by whose lines they are at: functions, since the numbers of lines are of that day."""
    body = []
    for arm, found in part("host_waits")["figures"].items():
        counts: Counter[str] = Counter()
        for line, waits in found["ours"].items():
            counts[re.sub(r":\d+", "", line)] += waits
        which = ", ".join(f"`{place}` {waits}" for place, waits in counts.items())
        body.append([arm, str(found["waits"]), str(found["at_our_lines"]), which])
    return table(["update", "waits", "at lines of this recipe", "which, as they were named then"], body)
