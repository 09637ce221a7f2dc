"""Names and formulas of what HDPO logs each step.

The agent-loop worker writes one :class:`~recipe.hdpo.algorithm.cliff.GroupRecord` per prompt; the trainer turns the
records of a step into metrics.
"""

from __future__ import annotations

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.tracking.cliff_history import CliffHistory
from recipe.hdpo.tracking.leak_metrics import leak_metrics


def privileged_wait_seconds(records: list[GroupRecord]) -> float:
    """Seconds by which privileged rollouts lengthened the rollout phase.

    The end of the last group minus the moment at which the last normal rollout of the whole batch settled. Privileged
    rollouts that ran while other prompts were still rolling out cost nothing here.
    """
    settled = [r.settled_at for r in records if not r.reissued]
    return max(0.0, max(r.ended_at for r in records) - max(settled)) if settled else 0.0


def step_metrics(records: list[GroupRecord], history: CliffHistory) -> dict[str, float]:
    """Metrics of one step's groups; also updates ``history``.

    Rates over no prompts (or no privileged rollouts) are left out rather than logged as 0. A cliff of the step before
    that was re-issued in this one counts in what is said of privileged rollouts, and nowhere else.
    """
    own = [r for r in records if not r.reissued]
    cliffs = [r for r in own if r.cliff]
    rollouts = sum(r.rollouts for r in records)
    solved_now, new_cliffs = history.update(own)
    metrics: dict[str, float] = {
        "hdpo/cliffs": len(cliffs),
        "hdpo/reissued_cliffs": len(records) - len(own),
        "hdpo/privileged_rollouts": rollouts,
        "hdpo/kept_trajectories": sum(r.kept for r in records),
        "hdpo/kept_tokens": sum(r.kept_tokens for r in records),
        "hdpo/skipped_too_long": sum(r.too_long for r in records),
        "hdpo/skipped_no_solution": sum(r.no_solution for r in records),
        "hdpo/skipped_no_feedback": sum(r.no_feedback for r in records),
        "hdpo/skipped_error": sum(r.errors for r in records),
        "hdpo/skipped_truncated": sum(r.skipped_truncated for r in records),
        "hdpo/kept_truncated": sum(r.kept_truncated for r in records),
        "hdpo/overlong_prompts": sum(r.overlong for r in records),
        "hdpo/lost_rollouts": sum(r.lost_rollouts for r in records),
        "hdpo/unscored_rollouts": sum(r.unscored for r in records),
        "hdpo/cliffs_solved_now": solved_now,
        "hdpo/new_cliffs": new_cliffs,
        "hdpo/open_cliffs": len(history.open_cliffs),
        "hdpo/ever_cliffs": len(history.ever_cliffs),
    }
    if own:
        metrics["hdpo/cliff_rate"] = len(cliffs) / len(own)
    if rollouts:
        metrics["hdpo/privileged_solve_rate"] = sum(r.solved_privileged for r in records) / rollouts
        metrics["hdpo/privileged_truncated_rate"] = sum(r.privileged_truncated for r in records) / rollouts
    scored = sum(r.size - r.lost_rollouts for r in records)
    if scored > 0:
        metrics["hdpo/truncated_rate"] = sum(r.truncated for r in records) / scored
    return metrics | leak_metrics(records)


def no_privileged_rollout(records: list[GroupRecord]) -> str | None:
    """What to say of a step whose privileged rollouts were all lost, at least one to an error; None for others.

    It is said and stops nothing: a step may have one cliff, and its own rollouts are trained on as in GRPO.
    """
    lost = sum(r.errors for r in records)
    if not lost or any(r.rollouts for r in records):
        return None
    first = next((r.privileged_error for r in records if r.privileged_error), "an agent-loop worker's log says why")
    return (
        f"NO PRIVILEGED ROLLOUT CAME THROUGH, so this step distills nothing and is one of GRPO: errors cost {lost} "
        f"(hdpo/skipped_error); the first: {first}"
    )


def lost_too_many(records: list[GroupRecord], most: float) -> str | None:
    """What to say where more than the share ``most`` of a step's normal rollouts was lost; None elsewhere."""
    asked, lost = sum(r.size for r in records), sum(r.lost_rollouts for r in records)
    if not asked or lost / asked <= most:
        return None
    first = min((r for r in records if r.first_error), key=lambda r: r.first_error_at, default=None)
    said = "an agent-loop worker's log says why" if first is None else f"the first error was: {first.first_error}"
    return f"{lost} of {asked} rollouts were lost, more than hdpo.max_lost_rollouts={most:g} allows; {said}"
