"""Scoring an answer by reasoning-gym's own verifier of the task, which alone knows what is right.

Imports reasoning-gym in the calls, which :func:`recipe.hdpo.math_process.call` makes in a process with limits.
"""

from __future__ import annotations

import json
from typing import Any

# Their verifiers run the model's answer as Python code (eval, or sympy's parse_expr).
RUN_ANSWERS_AS_CODE = (
    "binary_matrix",
    "countdown",
    "intermediate_integration",
    "n_queens",
    "polynomial_multiplication",
    "puzzle24",
    "simple_integration",
    "spiral_matrix",
    "string_insertion",
)


def ground_truth(task: str, entry: dict[str, Any]) -> str:
    """A generated entry as the ground truth of a row: JSON text with all that its verifier reads."""
    return json.dumps({"task": task, "entry": entry}, default=str, ensure_ascii=False)


def score(truth: str, answer: str) -> float:
    """What the task's verifier gives an answer, in [0, 1].

    Args:
        truth: :func:`ground_truth` of the row.

    Raises:
        ValueError: the ground truth is none of these, or its task is one of :data:`RUN_ANSWERS_AS_CODE`.
        Exception: whatever the verifier raises on the row's own answer too.
    """
    try:
        row = json.loads(truth)
        task, entry = row["task"], row["entry"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError("the ground truth is no reasoning-gym row: make the data by hdpo-data --gym TASK") from error
    if task in RUN_ANSWERS_AS_CODE:
        raise ValueError(f"{task}: its verifier runs answers as code")
    from reasoning_gym import get_score_answer_fn

    verify = get_score_answer_fn(task)
    try:
        return float(verify(answer, entry))
    except MemoryError:
        raise
    except Exception:
        # Some verifiers raise on answers that are malformed. Where the row is at fault, they raise on its own as well.
        if float(verify(str(entry["answer"]), entry)) < 1.0:
            raise
        return 0.0
