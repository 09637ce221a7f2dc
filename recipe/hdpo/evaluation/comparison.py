"""Arms compared problem by problem: one or several runs per arm, always on the same problems.

The first arm is the baseline. For every other arm and metric: the mean paired difference with its interval
and p-value (over problems, and over runs where an arm has several), and the problems won, lost and tied.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recipe.hdpo.evaluation.intervals import Support, two_level_difference, two_level_mean
from recipe.hdpo.evaluation.passk import powers_of_two
from recipe.hdpo.evaluation.pvalues import paired_difference, paired_p_value
from recipe.hdpo.evaluation.records import Results, read_results
from recipe.hdpo.evaluation.summary import ProblemTable, can_vote, support, tabulate, unscored_note

# Settings that must agree, or a difference would be one of the measurement.
_MUST_AGREE = (
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "grader",
    "reward_function",
    "reward_kwargs",
    "chat_template_kwargs",
    "success_reward",
)
_SHOULD_AGREE = ("n", "dtype", "weights_dtype", "device", "vllm", "transformers", "torch")


@dataclass(frozen=True)
class Arm:
    """One method: its runs on one set of problems."""

    name: str
    runs: list[Results]
    tables: list[ProblemTable]

    def values(self, metric: str) -> np.ndarray:
        """Shape (S, P): runs by problems, in the order of the ids."""
        return np.stack([table.values[metric] for table in self.tables])


@dataclass
class Comparison:
    """What :func:`compare` found; JSON-ready through :meth:`as_dict`."""

    arms: list[Arm]
    metrics: list[str]
    ks: list[int]
    means: dict[str, dict[str, dict[str, Any]]]  # arm -> metric -> interval
    differences: list[dict[str, Any]]
    by_difficulty: dict[str, dict[str, dict[str, dict[str, Any]]]]  # metric -> arm -> difficulty -> interval
    problems_by_difficulty: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def as_dict(self, beside: Path = Path()) -> dict[str, Any]:
        """Everything but the samples.

        Args:
            beside: the folder that the result folders are named from.
        """
        return {
            "problems": len(self.arms[0].tables[0].ids),
            "arms": {
                arm.name: {
                    "folders": [path_from(beside, run.folder) for run in arm.runs],
                    "metrics": self.means[arm.name],
                }
                for arm in self.arms
            },
            "differences": self.differences,
            **{f"{metric} by difficulty": arms for metric, arms in self.by_difficulty.items()},
            "problems by difficulty": self.problems_by_difficulty,
            "notes": self.notes,
        }


def path_from(folder: Path, path: str | Path) -> str:
    """A path as seen from a folder, so that both can move together; as it is where they share no more than the root."""
    here, there = folder.resolve(), Path(path).resolve()
    return os.path.relpath(there, here) if len(Path(os.path.commonpath([here, there])).parts) > 1 else str(path)


def load_arms(folders: Sequence[tuple[str, Sequence[Path]]], ks: Sequence[int] | None = None) -> list[Arm]:
    """Read every result folder and check that they can be compared.

    Args:
        folders: (arm name, its result folders), the baseline first.
        ks: subset sizes; None takes 1, 2, 4, ... up to the smallest n.

    Raises:
        ValueError: an arm or a folder twice, a folder that is not complete, other problems, or settings of
            the measurement that differ.
    """
    names = [name for name, _ in folders]
    paths = [Path(path).resolve() for _, runs in folders for path in runs]
    if len(set(names)) < len(names) or len(set(paths)) < len(paths):
        raise ValueError("An arm's name or a result folder is given twice. Give each once: NAME=DIR,DIR NAME=DIR.")
    read = [(name, [read_results(Path(path)) for path in runs]) for name, runs in folders]
    everything = [run for _, runs in read for run in runs]
    _check_comparable(everything)
    ks = sorted(set(ks)) if ks else powers_of_two(min(run.meta.settings["n"] for run in everything))
    # In a run whose responses hold no answer and are all wrong, every vote is lost; that is a result.
    answers = can_vote(everything)
    return [Arm(name, runs, [tabulate(run, list(ks), answers) for run in runs]) for name, runs in read]


def compare(arms: Sequence[Arm], seed: int = 0) -> Comparison:
    """Means of every arm, differences to the first one, and by difficulty pass@k for the smallest and the largest k.

    Args:
        arms: from :func:`load_arms`; a single arm gives means only.
        seed: of all resampling.
    """
    arms = list(arms)
    tables = [table for arm in arms for table in arm.tables]
    metrics = list(tables[0].values)
    bounds = {m: support(m, arms[0].runs[0].meta.settings["max_tokens"]) for m in metrics}
    means = {arm.name: {m: two_level_mean(arm.values(m), seed, bounds[m]).as_dict() for m in metrics} for arm in arms}
    differences = [_difference(arms[0], arm, metric, seed, bounds[metric]) for arm in arms[1:] for metric in metrics]
    groups = tables[0].groups()["difficulty"]
    ks = sorted(int(metric[5:]) for metric in metrics if metric.startswith("pass@"))
    # pass@1 may not be among the chosen k; greedy is always there.
    shown = dict.fromkeys(["pass@1" if 1 in ks else "greedy", f"pass@{ks[-1]}"])
    by_difficulty = {
        metric: {
            arm.name: {
                level: two_level_mean(arm.values(metric)[:, rows], seed, bounds[metric]).as_dict()
                for level, rows in groups.items()
            }
            for arm in arms
        }
        for metric in shown
    }
    return Comparison(
        arms,
        metrics,
        ks,
        means,
        differences,
        by_difficulty,
        {level: len(rows) for level, rows in groups.items()},
        _notes(arms),
    )


def _difference(baseline: Arm, arm: Arm, metric: str, seed: int, possible: Support) -> dict[str, Any]:
    values, base = arm.values(metric), baseline.values(metric)
    paired_P = paired_difference(values, base)
    return {
        "baseline": baseline.name,
        "arm": arm.name,
        "metric": metric,
        **two_level_difference(values, base, seed, possible.difference()).as_dict(),
        "p": paired_p_value(values, base, seed),
        "won": int((paired_P > 0).sum()),
        "lost": int((paired_P < 0).sum()),
        "tied": int((paired_P == 0).sum()),
    }


def _check_comparable(runs: Sequence[Results]) -> None:
    first = runs[0]
    ids = {s.problem_id for s in first.samples}
    for run in runs[1:]:
        own = {s.problem_id for s in run.samples}
        if own != ids:
            raise ValueError(
                f"{first.folder} and {run.folder} are not results of the same problems: {len(ids - own)} of "
                "the first "
                f"are missing in the second, {len(own - ids)} are only there (for example "
                f"{', '.join(sorted(ids ^ own)[:3])}). Evaluate both on the same --data with the same "
                "--limit."
            )
        changed = [
            f"{key}: {first.meta.settings.get(key)!r} and {run.meta.settings.get(key)!r}"
            for key in _MUST_AGREE
            if first.meta.settings.get(key) != run.meta.settings.get(key)
        ]
        if changed:
            raise ValueError(
                f"{first.folder} and {run.folder} were measured differently ({'; '.join(changed)}). "
                "Evaluate both with the same settings."
            )


def _notes(arms: Sequence[Arm]) -> list[str]:
    runs = [run for arm in arms for run in arm.runs]
    notes = []
    for key in _SHOULD_AGREE:
        seen = sorted({str(run.meta.settings.get(key)) for run in runs})
        if len(seen) > 1:
            notes.append(f"The runs differ in {key}: {', '.join(seen)}.")
    notes += [
        f"Arm {arm.name}, {run.folder.name}: {note}" for arm in arms for run in arm.runs for note in unscored_note(run)
    ]
    for arm in arms:
        models = {run.meta.settings.get("model_sha256") for run in arm.runs}
        if len(models) < len(arm.runs):
            notes.append(
                f"Arm {arm.name}: some runs are the same weights; they show the luck of sampling, not of training."
            )
    single = [arm.name for arm in arms if len(arm.runs) == 1]
    if single:
        notes.append(
            f"One run of {', '.join(single)}: intervals and p-values cover the choice of problems, and not the luck of "
            "that training run (an untrained model has none)."
        )
    return notes
