"""Signs of copying in what is kept, and in correct plain rollouts of the same step: names and formulas of the metrics.

Plain correct rollouts show the signs too, without having seen anything: what counts is the difference of the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.algorithm.gate import CHECKED, FAILED, Signs


def leak_metrics(records: Sequence[GroupRecord]) -> dict[str, float]:
    """Means over trajectories, and counts of what the gate dropped. A mean over nothing is left out."""
    kept = [Signs(**signs) for record in records for signs in record.kept_signs.values()]
    plain = [Signs(**signs) for record in records for signs in record.plain_signs]
    failed_plain = sum(signs.step_check == FAILED for signs in plain)

    def dropped(reason: str) -> int:
        return sum(record.dropped.get(reason, 0) for record in records)

    metrics: dict[str, float | None] = {
        "hdpo/plain_correct": len(plain),
        "hdpo/dropped_speaks": dropped("speaks"),
        "hdpo/dropped_run_share": dropped("run_share"),
        "hdpo/dropped_length_share": dropped("length_share"),
        "hdpo/dropped_length_unknown": dropped("length_unknown"),
        "hdpo/dropped_steps": dropped("steps"),
        "hdpo/dropped_step_check_error": dropped("step_check_error"),
        "hdpo/step_check_errors": failed_plain + sum(record.step_check_errors for record in records),
        "hdpo/kept_speaks": _mean([s.speaks for s in kept]),
        "hdpo/plain_speaks": _mean([s.speaks for s in plain]),
        "hdpo/kept_shared_run": _mean([s.run for s in kept]),
        "hdpo/plain_shared_run": _mean([s.run for s in plain]),
        "hdpo/kept_shared_run_share": _mean([s.run_share for s in kept]),
        "hdpo/plain_shared_run_share": _mean([s.run_share for s in plain]),
        "hdpo/kept_length_share": _mean([s.length_share for s in kept]),
        "hdpo/plain_length_share": _mean([s.length_share for s in plain]),
        "hdpo/kept_workless": _mean([s.workless for s in kept]),
        "hdpo/plain_workless": _mean([s.workless for s in plain]),
        "hdpo/kept_valid_steps": _mean([s.steps for s in kept]),
        "hdpo/plain_valid_steps": _mean([s.steps for s in plain]),
        "hdpo/kept_without_steps": _mean([s.steps is None for s in kept if s.step_check == CHECKED]),
        "hdpo/plain_without_steps": _mean([s.steps is None for s in plain if s.step_check == CHECKED]),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def _mean(values: Sequence[float | None]) -> float | None:
    """Of the values that are known; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
