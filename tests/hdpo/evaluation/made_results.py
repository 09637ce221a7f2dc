"""Result folders with chosen scores, made without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.hdpo.evaluation.problems import ids_sha256
from recipe.hdpo.evaluation.records import GREEDY, Meta, Sample
from recipe.hdpo.evaluation.writer import ResultWriter

SETTINGS: dict[str, Any] = {
    "n": 4,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "max_tokens": 16,
    "seed": 0,
    "limit": None,
    "success_reward": 1.0,
    "grader": "r",
    "reward_function": "compute_score",
    "model_sha256": "m",
}


def settings(**changes: Any) -> dict[str, Any]:
    """The settings above with changes."""
    return {**SETTINGS, **changes}


def meta(problems: int, **changes: Any) -> Meta:
    """A header for so many problems: p1, p2, ... unless ``problems_sha256`` says otherwise."""
    own = {"problems_sha256": ids_sha256(f"p{i}" for i in range(1, problems + 1)), **changes}
    return Meta(settings(**own), problems, {"command": "python -m recipe.hdpo.evaluate --again"})


def sample(problem: str, number: int, right: bool, **changes: Any) -> Sample:
    """One sample; a right one answers 7, a wrong one its own number."""
    values: dict[str, Any] = {
        "problem_id": problem,
        "data_source": "made",
        "difficulty": "1",
        "sample": number,
        "prompt": [{"role": "user", "content": problem}],
        "response": "#### 7",
        "answer": "7" if right else f"wrong {number}",
        "score": float(right),
        "tokens": 10 + number,
        "truncated": False,
    }
    return Sample(**{**values, **changes})


def write_results(
    folder: Path,
    scores: Mapping[str, Sequence[int]],
    difficulty: Mapping[str, str] | None = None,
    **changes: Any,
) -> Path:
    """A complete folder from problem -> [greedy, sample 0, sample 1, ...] as 0 or 1."""
    n = len(next(iter(scores.values()))) - 1
    own = {"n": n, "problems_sha256": ids_sha256(scores), **changes}
    with ResultWriter(folder, meta(len(scores), **own)) as writer:
        writer.write(
            sample(problem, i, bool(right), difficulty=(difficulty or {}).get(problem, "1"))
            for problem, row in scores.items()
            for i, right in zip(range(GREEDY, n), row, strict=True)
        )
    return folder
