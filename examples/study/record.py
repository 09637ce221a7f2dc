"""The result of one run as a small JSON file: everything that the report needs, and what it takes to repeat the run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_preprocess.words import DATA_SOURCE
from examples.study.environment import checked_out_commit, installed_versions
from examples.study.plan import Plan, Run
from examples.study.tasks import TASKS, weights_sha256
from examples.training import SETTINGS_VERSION
from recipe.hdpo.algorithm.cliff import is_success
from recipe.hdpo.evaluation.graders import REWARD_FILE, grader_name
from recipe.hdpo.evaluation.leaks import recorded_leakage
from recipe.hdpo.evaluation.passk import pass_at_k
from recipe.hdpo.evaluation.records import GREEDY, read_results
from recipe.hdpo.evaluation.training_log import read_training_log

# What a plan that validates while it trains logs.
VALIDATED = tuple(f"val-hdpo/{DATA_SOURCE}/{metric}" for metric in ("greedy", "pass@1"))
CURVES = (
    "critic/score/mean",
    "actor/entropy",
    "actor/grad_norm",
    "response_length/mean",
    "hdpo/cliff_rate",
    "hdpo/privileged_rollouts",
    "hdpo/privileged_solve_rate",
    "hdpo/privileged_solve_rate_recent",
    "hdpo/teacher_collapse",
    "hdpo/kept_trajectories",
    "hdpo/cliffs_solved_now",
    "hdpo/new_cliffs",
    "hdpo/jsd_mean",
    "timing_s/step",
    "hdpo/timing_s/privileged_wait",
    "hdpo/timing_s/teacher_pass",
    *VALIDATED,
)
# Settings that plans from before them lack.
LATER = ("untrained_problems", "tuning_steps")
# Of what `evaluate` reads in the right samples.
SIGNS = ("valid_steps", "without_steps", "speaks", "workless")


@dataclass(frozen=True)
class Problem:
    """Counts of one test problem: n samples of which ``correct`` are right, and whether the greedy one is."""

    id: str
    difficulty: str
    n: int
    correct: int
    greedy: bool


@dataclass(frozen=True)
class Record:
    """One run's result.

    Attributes:
        problems: counts by test problem, sorted by id.
        curves: training metric -> [step, value] pairs.
        overrides: Hydra overrides on top of examples/cpu_demo.sh.
        settings: all else that decides the counts, see :func:`plan_settings`.
        seconds: wall time of training (start-up included; of a training that was interrupted, the last start, or
            the sum of its steps if that is more) and of evaluation.
        about: digest of the base model's weights, cores and their vector instructions, commit of this checkout,
            versions.
        signs: of the right samples, which saw no solution: ``valid_steps``, ``without_steps``, ``speaks``,
            ``workless`` (shares, means over problems), and ``tokens``, the mean length of all samples.
    """

    run: Run
    problems: list[Problem]
    curves: dict[str, list[list[float]]]
    overrides: list[str]
    settings: dict[str, Any]
    seconds: dict[str, float]
    about: dict[str, Any]
    signs: dict[str, float] = field(default_factory=dict)

    def values(self, metric: str) -> np.ndarray:
        """``greedy`` or ``pass@k`` of every problem, shape (P,)."""
        if metric == "greedy":
            return np.array([float(p.greedy) for p in self.problems])
        n, correct = np.array([(p.n, p.correct) for p in self.problems]).T
        return pass_at_k(n, correct, int(metric.removeprefix("pass@")))

    def mean(self, metric: str) -> float:
        """Mean over problems."""
        return float(self.values(metric).mean())

    def write(self, path: Path) -> None:
        """Write the file in one step, one line per problem and curve, so that it can be read and compared."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = asdict(self)
        content["problems"] = [list(problem.values()) for problem in content["problems"]]
        lines = [f'"{key}": {_lines(value)}' for key, value in content.items()]
        part = path.with_suffix(f".part-{os.getpid()}")
        part.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        os.replace(part, path)


def _lines(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]"
    if isinstance(value, Mapping) and value and isinstance(next(iter(value.values())), list):
        return "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n}"
    return json.dumps(value)


def plan_settings(plan: Plan) -> dict[str, Any]:
    """What decides the counts of every run of a plan, besides a run's own overrides."""
    return {
        "settings_version": SETTINGS_VERSION,
        "grader": grader_name(REWARD_FILE),
        "base_model": list(plan.base_model),
        "train_problems": list(TASKS[plan.task].about.values()),
        "tuning_problems": plan.tuning_problems,
        "test_problems": plan.test_problems,
        **{name: value for name in LATER if (value := getattr(plan, name))},
        "samples": plan.samples,
        "steps": plan.steps,
    }


def make_record(
    run: Run,
    plan: Plan,
    settings: Mapping[str, Any],
    model: Path,
    folder: Path,
    evaluated: Path,
    seconds: tuple[float, float],
) -> Record:
    """Take a run's evaluation and training metrics together."""
    results = read_results(evaluated)
    success = results.meta.settings["success_reward"]
    counts: dict[str, dict[str, Any]] = {}
    for s in results.samples:
        entry = counts.setdefault(
            s.problem_id, {"id": s.problem_id, "difficulty": s.difficulty, "n": 0, "correct": 0, "greedy": False}
        )
        right = is_success(s.score, success)
        if s.sample == GREEDY:
            entry["greedy"] = right
        else:
            entry["n"] += 1
            entry["correct"] += right
    log = read_training_log(folder / "metrics.jsonl") if run.trains else {}
    curves = {
        name: [[int(step), round(float(value), 5)] for step, value in zip(*log[name], strict=True)]
        for name in CURVES
        if name in log
    }
    leakage = recorded_leakage(results) or {}
    signs = {name: round(found["estimate"], 5) for name in SIGNS if (found := leakage.get(name))}
    steps_took = sum(value for _, value in curves.get("timing_s/step", []))
    return Record(
        run=run,
        problems=[Problem(**counts[key]) for key in sorted(counts)],
        curves=curves,
        overrides=plan.overrides(run),
        settings=dict(settings),
        seconds={"training": round(max(seconds[0], steps_took), 1), "evaluation": round(seconds[1], 1)},
        about={
            "base_model_sha256": weights_sha256(model),
            "cores": os.cpu_count(),
            "vectors": torch.backends.cpu.get_cpu_capability(),
            "commit": checked_out_commit(),
            "versions": installed_versions(),
        },
        signs=signs | {"tokens": round(float(np.mean([s.tokens for s in results.samples if s.sample != GREEDY])), 2)},
    )
