"""What gradient the kept tokens of a run have, by their divergence: by Jensen-Shannon, and by forward KL.

    python -m benchmarks.saturation RUN

RUN is the `trainer.rollout_data_dir` of a run, or a folder above it. Each token's probabilities come from what the
update recorded (`hdpo_kept/STEP.jsonl`): the tokens that teacher and student think most likely; all others are one
event. A gradient's size is its Euclidean norm in the student's logits of these events (docs/theory.md, section 8).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recipe.hdpo.cliffs.files import Run, find_run
from recipe.hdpo.evaluation.tables import text_table

# Of the largest JSD, ln 2.
BOUNDS = (0.0, 0.1, 0.5, 0.9, 1.0)
HEAD = ("JSD over ln 2", "tokens", "of all divergence", "student's probability, median", "gradient: JSD", "forward KL")


def tokens(run: Run) -> Iterator[dict[str, float]]:
    """``{"step", "jsd", "q", "jsd_gradient", "kl_gradient"}`` of every recorded token.

    ``q`` is the student's probability of the kept token, NaN where it is not among the recorded ones.
    """
    for step in run.steps:
        for line in run.kept(step).values():
            told: dict[str, Any] = line.get("hdpo_tokens") or {"at": ()}
            for i, at in enumerate(told["at"]):
                pairs = {int(id_): (p, q) for id_, p, q in told["teacher_top"][i] + told["student_top"][i]}
                _, q = pairs.get(told["ids"][at], (None, float("nan")))
                p_E, q_E = (_with_rest(np.array(column)) for column in zip(*pairs.values(), strict=True))
                yield {"step": step, "jsd": told["divergence"][i], "q": q} | gradients(p_E, q_E)


def gradients(p_E: np.ndarray, q_E: np.ndarray) -> dict[str, float]:
    """Norms of the gradients of JSD(p, q) and KL(p || q) in the logits of q; probabilities of E events, each (E,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        g_E = np.where(q_E > 0, 0.5 * np.log(2 * q_E / (p_E + q_E)), 0.0)
    jsd_E = q_E * (g_E - (q_E * g_E).sum())
    return {"jsd_gradient": float(np.linalg.norm(jsd_E)), "kl_gradient": float(np.linalg.norm(q_E - p_E))}


def _with_rest(p_E: np.ndarray) -> np.ndarray:
    return np.append(p_E, max(0.0, 1.0 - p_E.sum()))


def rows_of(found: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Of the tokens between each two of :data:`BOUNDS`: count, share of all divergence, and means of the gradients."""
    columns = {name: np.array([token[name] for token in found]) for name in ("jsd", "q", "jsd_gradient", "kl_gradient")}
    place = np.clip(np.digitize(columns["jsd"] / np.log(2), BOUNDS) - 1, 0, len(BOUNDS) - 2)
    rows = []
    for i, (low, high) in enumerate(itertools.pairwise(BOUNDS)):
        own = {name: values[place == i] for name, values in columns.items()}
        count, of_all = len(own["jsd"]), columns["jsd"].sum()
        known = own["q"][~np.isnan(own["q"])]
        rows.append(
            {
                **{"low": low, "high": high, "tokens": count},
                "share_of_divergence": float(own["jsd"].sum() / of_all) if of_all else None,
                "student_median": float(np.median(known)) if len(known) else None,
                **{name: float(own[name].mean()) if count else None for name in ("jsd_gradient", "kl_gradient")},
            }
        )
    return rows


def quarters(found: list[dict[str, float]]) -> list[dict[str, int]]:
    """``{"first", "last", "tokens", "saturated"}`` of each quarter of the steps: those in the last row, over time."""
    parts = np.array_split(np.unique([token["step"] for token in found]).astype(int), 4)
    told = []
    for steps in filter(len, parts):
        own = [token for token in found if steps[0] <= token["step"] <= steps[-1]]
        saturated = sum(token["jsd"] >= BOUNDS[-2] * np.log(2) for token in own)
        told.append({"first": int(steps[0]), "last": int(steps[-1]), "tokens": len(own), "saturated": int(saturated)})
    return told


def cells(row: dict[str, Any]) -> list[str]:
    """A row as :data:`HEAD` names it."""
    figures = [row["student_median"], row["jsd_gradient"], row["kl_gradient"]]
    share = "" if row["share_of_divergence"] is None else f"{100 * row['share_of_divergence']:.0f} %"
    # The update records probabilities to four digits.
    said = ["" if figure is None else f"{figure:.2g}" if figure else "below 0.0001" for figure in figures]
    return [f"{row['low']:g} to {row['high']:g}", f"{row['tokens']:,}", share, *said]


def main(argv: list[str] | None = None) -> int:
    """Print the table; with ``--json FILE`` write its figures too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    try:
        run = Run(find_run(args.run))
        found = list(tokens(run))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not found:
        print(f"error: no token of {args.run} was recorded: nothing was kept, or lambda was 0", file=sys.stderr)
        return 2
    rows = rows_of(found)
    print(text_table(list(HEAD), [cells(row) for row in rows]))
    over_time = quarters(found)
    said = (f"{100 * q['saturated'] / q['tokens']:.1f} % in steps {q['first']} to {q['last']}" for q in over_time)
    print(f"\ntokens of the last row: {', '.join(said)}")
    if args.json:
        figures = {"steps": len(run.steps), "tokens": len(found), "rows": rows, "quarters": over_time}
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
