"""What each rung of a ladder came to in a step (:mod:`recipe.hdpo.algorithm.ladder`)."""

from __future__ import annotations

from collections.abc import Sequence

from recipe.hdpo.algorithm.cliff import GroupRecord

ROLLOUTS, SOLVE_RATE, KEPT_SHARE = "hdpo/rung_rollouts", "hdpo/rung_solve_rate", "hdpo/rung_kept_share"


def rung_metrics(records: Sequence[GroupRecord], sources: Sequence[str]) -> dict[str, float]:
    """By source: its privileged rollouts that were scored, the share of them with R = 1, and its share of all kept.

    A share of nothing is left out. With one source there are none of these: the step's own figures say the same.
    """
    if len(sources) < 2:
        return {}

    def total(source: str, name: str) -> int:
        return sum(record.by_source[source][name] for record in records if source in record.by_source)

    metrics: dict[str, float] = {}
    all_kept = sum(total(source, "kept") for source in sources)
    for source in sources:
        # TensorBoard takes no colon.
        name, rollouts = source.replace(":", "_"), total(source, "rollouts")
        metrics[f"{ROLLOUTS}/{name}"] = rollouts
        if rollouts:
            metrics[f"{SOLVE_RATE}/{name}"] = total(source, "solved") / rollouts
        if all_kept:
            metrics[f"{KEPT_SHARE}/{name}"] = total(source, "kept") / all_kept
    return metrics
