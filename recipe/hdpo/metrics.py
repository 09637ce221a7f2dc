"""Names and formulas of what HDPO logs each step.

The agent-loop worker writes one :class:`GroupRecord` per prompt; the trainer turns the records of a step into metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

RECORD_TAG = "hdpo_record"


@dataclass
class GroupRecord:
    """What happened to one prompt in one step.

    Attributes:
        prompt_id: the problem's id over epochs and restarts (:func:`recipe.hdpo.privileged.prompt_id`).
        cliff: whether all K rollouts failed; solved: whether one succeeded.
        lost_rollouts: normal rollouts that ended with an error.
        rollouts: privileged rollouts that were scored.
        solved_privileged: privileged rollouts with R = 1.
        kept, kept_tokens: privileged rollouts that are used (those with R = 1, or all), and their response tokens.
        too_long, no_solution, errors: privileged rollouts that were skipped or lost, by reason.
        settled_at, ended_at: wall-clock seconds at which the normal rollouts, and then the group, were done.
    """

    prompt_id: str
    cliff: bool
    solved: bool
    lost_rollouts: int = 0
    rollouts: int = 0
    solved_privileged: int = 0
    kept: int = 0
    kept_tokens: int = 0
    too_long: int = 0
    no_solution: int = 0
    errors: int = 0
    settled_at: float = 0.0
    ended_at: float = 0.0

    def as_tag(self) -> dict[str, Any]:
        """The record as a TransferQueue tag."""
        return {RECORD_TAG: asdict(self)}

    @classmethod
    def from_tag(cls, tag: Mapping[str, Any]) -> GroupRecord | None:
        """The record that a tag holds; None for the tag of a row."""
        return cls(**tag[RECORD_TAG]) if RECORD_TAG in tag else None


@dataclass
class CliffHistory:
    """Which prompts were cliffs at their last visit. Saved with every checkpoint.

    Attributes:
        open_cliffs: ids of prompts that were cliffs when last seen.
        ever_cliffs: ids of prompts that were ever cliffs.
        solved: ids of prompts of which a rollout succeeded when last seen.
    """

    open_cliffs: set[str] = field(default_factory=set)
    ever_cliffs: set[str] = field(default_factory=set)
    solved: set[str] = field(default_factory=set)

    def update(self, records: Iterable[GroupRecord]) -> tuple[int, int]:
        """Take in one step; returns how many prompts went from cliff to solved since they were last seen, and how
        many the other way. A model that learns nothing has both, about equally often: K rollouts are a small sample."""
        solved_now, new_cliffs = 0, 0
        for record in records:
            if record.cliff:
                new_cliffs += record.prompt_id in self.solved
                self.solved.discard(record.prompt_id)
                self.open_cliffs.add(record.prompt_id)
                self.ever_cliffs.add(record.prompt_id)
            elif record.solved:
                solved_now += record.prompt_id in self.open_cliffs
                self.open_cliffs.discard(record.prompt_id)
                self.solved.add(record.prompt_id)
        return solved_now, new_cliffs

    def state_dict(self) -> dict[str, list[str]]:
        """JSON-able state."""
        return {name: sorted(getattr(self, name)) for name in ("open_cliffs", "ever_cliffs", "solved")}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, list[str]]) -> CliffHistory:
        """Inverse of :meth:`state_dict`."""
        return cls(**{name: set(ids) for name, ids in state.items()})


def privileged_wait_seconds(records: list[GroupRecord]) -> float:
    """Seconds by which privileged rollouts lengthened the rollout phase.

    The end of the last group minus the moment at which the last normal rollout of the whole batch settled. Privileged
    rollouts that ran while other prompts were still rolling out cost nothing here.
    """
    if not records:
        return 0.0
    return max(r.ended_at for r in records) - max(r.settled_at for r in records)


def step_metrics(records: list[GroupRecord], history: CliffHistory) -> dict[str, float]:
    """Metrics of one step's groups; also updates ``history``.

    Rates over no prompts (or no privileged rollouts) are left out rather than logged as 0.
    """
    cliffs = [r for r in records if r.cliff]
    rollouts = sum(r.rollouts for r in records)
    solved_now, new_cliffs = history.update(records)
    metrics: dict[str, float] = {
        "hdpo/cliffs": len(cliffs),
        "hdpo/privileged_rollouts": rollouts,
        "hdpo/kept_trajectories": sum(r.kept for r in records),
        "hdpo/kept_tokens": sum(r.kept_tokens for r in records),
        "hdpo/skipped_too_long": sum(r.too_long for r in records),
        "hdpo/skipped_no_solution": sum(r.no_solution for r in records),
        "hdpo/skipped_error": sum(r.errors for r in records),
        "hdpo/lost_rollouts": sum(r.lost_rollouts for r in records),
        "hdpo/cliffs_solved_now": solved_now,
        "hdpo/new_cliffs": new_cliffs,
        "hdpo/open_cliffs": len(history.open_cliffs),
        "hdpo/ever_cliffs": len(history.ever_cliffs),
        "hdpo/timing_s/privileged_wait": privileged_wait_seconds(records),
    }
    if records:
        metrics["hdpo/cliff_rate"] = len(cliffs) / len(records)
    if rollouts:
        metrics["hdpo/privileged_solve_rate"] = sum(r.solved_privileged for r in records) / rollouts
    return metrics
