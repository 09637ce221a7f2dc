"""How well the signs of copying find what is copied: against trajectories that were read and labelled by hand.

    python -m benchmarks.leak_signs

Each line of docs/results/leakage/trajectories.jsonl is a correct privileged rollout of SmolLM2-135M-Instruct: problem,
shown text, response, the signs that need the model's tokens, and a label:

    derived       its own steps, all of them true, lead to the answer
    copied        steps of the shown solution, word for word or nearly, or with a number that only the solution has
    rationalised  the shown answer after steps that are false or do not lead to it
    answer_only   the shown answer without a step, alone or among words that are none

A sign is right where it marks what was not derived.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.hdpo.algorithm.leakage import COPIED_SHARE, WORKLESS_SHARE, reference_pattern
from recipe.hdpo.evaluation.tables import text_table
from recipe.hdpo.step_check import arithmetic, arithmetic_to_answer

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results" / "leakage"
TRAJECTORIES = FOLDER / "trajectories.jsonl"
LABELS = ("derived", "copied", "rationalised", "answer_only")
_SPEAKS = reference_pattern()


def _is_below(share: float | None) -> bool:
    return share is not None and share < 1.0


def _shows_any(row: dict[str, Any]) -> bool:
    return any(sign(row) for name, sign in SIGNS.items() if name != ANY)


ANY = "any of them"
# What each gate would drop, at the values that docs/leakage.md names.
SIGNS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "speaks of a reference": lambda row: _SPEAKS.search(row["response"]) is not None,
    f"one shared run is {COPIED_SHARE:g} of it or more": lambda row: row["run_share"] >= COPIED_SHARE,
    f"shorter than {WORKLESS_SHARE:g} of the solution": lambda row: row["length_share"] < WORKLESS_SHARE,
    "a step is false": lambda row: _is_below(arithmetic(row["response"])),
    "a step is false, or the answer is no step's result": lambda row: _is_below(arithmetic_to_answer(row["response"])),
    "no step that the check can judge": lambda row: arithmetic(row["response"]) is None,
    ANY: _shows_any,
}


@dataclass(frozen=True)
class Measured:
    """A sign against the labels.

    Attributes:
        sign: its name.
        marked: trajectories that show it, by label.
        labels: all trajectories, by label.
    """

    sign: str
    marked: Counter[str]
    labels: Counter[str]

    @property
    def precision(self) -> float | None:
        """Share of the marked that were not derived; None where none is marked."""
        return _leaked(self.marked) / self.marked.total() if self.marked else None

    @property
    def recall(self) -> float | None:
        """Share of what was not derived that is marked; None where all was derived."""
        return _leaked(self.marked) / _leaked(self.labels) if _leaked(self.labels) else None


def _leaked(counts: Counter[str]) -> int:
    return counts.total() - counts["derived"]


def read_trajectories(path: Path = TRAJECTORIES) -> list[dict[str, Any]]:
    """The labelled trajectories.

    Raises:
        ValueError: a label that there is not.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows, 1):
        if row["label"] not in LABELS:
            raise ValueError(f"{path}, line {number}: label {row['label']!r} is none of {', '.join(LABELS)}")
    return rows


def measure(rows: list[dict[str, Any]]) -> list[Measured]:
    """Every sign against the labels."""
    labels = Counter(row["label"] for row in rows)
    return [Measured(name, Counter(row["label"] for row in rows if sign(row)), labels) for name, sign in SIGNS.items()]


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the result, as text: of each label, how many a sign marks."""
    labels = Counter(row["label"] for row in rows)
    shown = [label for label in LABELS if labels[label]]
    head = ["sign", *(f"of {labels[label]} {label.replace('_', ' ')}" for label in shown), "precision", "recall"]
    lines = [
        [m.sign, *(str(m.marked[label]) for label in shown), _share(m.precision), _share(m.recall)]
        for m in measure(rows)
    ]
    return head, lines


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def main() -> None:
    """Print the labels and the table."""
    rows = read_trajectories()
    for source in sorted({row["source"] for row in rows}):
        counts = Counter(row["label"] for row in rows if row["source"] == source)
        print(f"source {source}: {', '.join(f'{counts[label]} {label}' for label in LABELS)}")
    print(text_table(*table(rows)))


if __name__ == "__main__":
    main()
