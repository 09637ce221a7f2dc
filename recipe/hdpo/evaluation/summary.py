"""Metrics of one result folder: per problem first, then means over problems with bootstrap intervals.

==============  =============================================================================  ==========
metric          per problem                                                                    support
==============  =============================================================================  ==========
greedy          1 if the greedy response is correct                                            [0, 1]
pass@k          unbiased, from the n sampled responses                                         [0, 1]
maj@k           exact majority vote, k >= 3; left out unless right responses hold an answer    [0, 1]
mean_tokens     mean response length of the n samples, tokens                                  [0, max]
truncated       share of the n samples that ran into the token limit                           [0, 1]
==============  =============================================================================  ==========

A response is correct when its score reaches ``success_reward``. maj@1 and maj@2 tell nothing new: with ties shared
out, a vote of two is right as often as a single voter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipe.hdpo.algorithm.cliff import is_success
from recipe.hdpo.evaluation.intervals import Support, bootstrap_mean
from recipe.hdpo.evaluation.passk import maj_at_k, pass_at_k, powers_of_two
from recipe.hdpo.evaluation.records import GREEDY, Results, Sample
from recipe.hdpo.evaluation.tables import number, text_table


@dataclass(frozen=True)
class ProblemTable:
    """Every metric of every problem of one run.

    Attributes:
        ids, data_sources, difficulties: length P, sorted by id.
        values: metric -> shape (P,).
    """

    ids: list[str]
    data_sources: list[str]
    difficulties: list[str]
    values: dict[str, np.ndarray]

    def groups(self) -> dict[str, dict[str, np.ndarray]]:
        """``{"data_source": {name: row numbers}, "difficulty": {...}}``.

        A difficulty is named ``source / difficulty`` where several sources would share the name.
        """
        several = len(set(self.data_sources)) > 1
        levels = [
            f"{source} / {level}" if several else level
            for source, level in zip(self.data_sources, self.difficulties, strict=True)
        ]
        return {"data_source": _rows_by(self.data_sources), "difficulty": _rows_by(levels)}


def support(metric: str, max_tokens: int) -> Support:
    """What values a metric can have for one problem."""
    return Support(0.0, float(max_tokens), at_ends=False) if metric == "mean_tokens" else Support(0.0, 1.0)


def tabulate(results: Results, ks: list[int] | None = None, answers: bool | None = None) -> ProblemTable:
    """Compute every metric of every problem.

    Args:
        results: a complete result folder.
        ks: subset sizes; None takes 1, 2, 4, ... <= n.
        answers: whether there is a maj@k; None decides by :func:`can_vote`.

    Raises:
        ValueError: a k above n.
    """
    by_problem: dict[str, list[Sample]] = defaultdict(list)
    for sample in results.samples:
        by_problem[sample.problem_id].append(sample)
    n, success = results.meta.settings["n"], results.meta.settings["success_reward"]
    ks = sorted(set(ks)) if ks else powers_of_two(n)
    answers = can_vote([results]) if answers is None else answers
    ids = sorted(by_problem)
    rows: list[dict[str, float]] = []
    for problem in ids:
        drawn = [s for s in by_problem[problem] if s.sample != GREEDY]
        greedy = next(s for s in by_problem[problem] if s.sample == GREEDY)
        right = [is_success(s.score, success) for s in drawn]
        row = {"greedy": float(is_success(greedy.score, success))}
        row |= {f"pass@{k}": float(pass_at_k(n, sum(right), k)) for k in ks}
        if answers:
            row |= {f"maj@{k}": maj_at_k([s.answer for s in drawn], right, k) for k in ks if k > 2}
        row["mean_tokens"] = float(np.mean([s.tokens for s in drawn]))
        row["truncated"] = float(np.mean([s.truncated for s in drawn]))
        rows.append(row)
    first = [by_problem[problem][0] for problem in ids]
    values = {metric: np.array([row[metric] for row in rows]) for metric in rows[0]}
    return ProblemTable(ids, [s.data_source for s in first], [s.difficulty for s in first], values)


def can_vote(runs: Sequence[Results]) -> bool:
    """Whether a majority vote means something: a response holds an answer, and every right one does. A wrong response
    without one has no vote; a right one that had none would make the vote wrong where the model is right."""
    return any(s.answer for run in runs for s in run.samples) and not any(map(right_without_answer, runs))


def right_without_answer(results: Results) -> int:
    """Number of right responses in which no answer is found."""
    success = results.meta.settings["success_reward"]
    return sum(not s.answer and is_success(s.score, success) for s in results.samples)


def summarise(results: Results, ks: list[int] | None = None, seed: int = 0) -> dict[str, Any]:
    """All metrics with 95 % intervals over problems.

    Returns:
        JSON-ready: ``{"settings", "problems", "overall": {metric: {"estimate", "low", "high"}},
        "data_source": {name: {"problems", "metrics"}}, "difficulty": {...}, "notes"}``.
    """
    table, limit = tabulate(results, ks), results.meta.settings["max_tokens"]
    summary: dict[str, Any] = {
        "settings": results.meta.settings,
        "problems": len(table.ids),
        "overall": _metrics(table, np.arange(len(table.ids)), seed, limit),
    }
    for kind, groups in table.groups().items():
        summary[kind] = {
            name: {"problems": len(rows), "metrics": _metrics(table, rows, seed, limit)}
            for name, rows in groups.items()
        }
    summary["notes"] = notes(table, results)
    return summary


def notes(table: ProblemTable, results: Results) -> list[str]:
    """What a reader of the numbers has to know."""
    found = ["Intervals: 95 %, bootstrap over problems; they do not cover the luck of a training run."]
    wanted = {f"maj@{metric[5:]}" for metric in table.values if metric.startswith("pass@") and int(metric[5:]) > 2}
    if wanted - set(table.values):
        unmarked = right_without_answer(results)
        which = f"{unmarked} right response(s) hold" if unmarked else "no response holds"
        found.append(
            f"maj@k is left out: {which} {'no' if unmarked else 'an'} answer after #### or in \\boxed{{}}, and the "
            "reward function named none."
        )
    found += unscored_note(results)
    duplicates = results.meta.about.get("duplicates", [])
    if duplicates:
        found.append(f"{len(duplicates)} row(s) repeat another problem and count once: {', '.join(duplicates[:5])}.")
    return found


def unscored_note(results: Results) -> list[str]:
    """One line that names the samples which could not be graded; none without them. They count as wrong, so that every
    problem keeps its n samples, and the line says how much that can hide."""
    lost = [s for s in results.samples if s.unscored]
    if not lost:
        return []
    drawn, greedy = sum(s.sample != GREEDY for s in lost), sum(s.sample == GREEDY for s in lost)
    problems, n = results.meta.problems, results.meta.settings["n"]
    return [
        f"{len(lost)} sample(s) could not be graded and count as wrong ({lost[0].unscored}: sample {lost[0].sample} of "
        f"problem {lost[0].problem_id}{', ...' if len(lost) > 1 else ''}). Had all been right, pass@1 would be "
        f"{drawn / (n * problems):.3f} and greedy {greedy / problems:.3f} higher."
    ]


def print_summary(summary: dict[str, Any]) -> str:
    """The summary as a plain text table."""
    metrics = list(summary["overall"])
    rows = [["all", str(summary["problems"]), *(number(summary["overall"][m], m) for m in metrics)]]
    for kind in ("data_source", "difficulty"):
        if len(summary[kind]) > 1:
            for name, group in summary[kind].items():
                cells = [number(group["metrics"][m], m) for m in metrics]
                rows.append([f"{kind} {name}", str(group["problems"]), *cells])
    head = text_table(["problems of", "count", *metrics], rows)
    return "\n".join([head, *summary["notes"]])


def _metrics(table: ProblemTable, rows: np.ndarray, seed: int, max_tokens: int) -> dict[str, dict[str, Any]]:
    return {
        metric: bootstrap_mean(values[rows], seed, support(metric, max_tokens)).as_dict()
        for metric, values in table.values.items()
    }


def _rows_by(labels: list[str]) -> dict[str, np.ndarray]:
    return {name: np.flatnonzero(np.array(labels) == name) for name in sorted(set(labels), key=natural)}


def natural(label: str) -> list[tuple[int, float, str]]:
    """Sort key that puts level 10 after level 9."""
    return [(0, float(part), "") if part.isdecimal() else (1, 0.0, part) for part in label.split()]
