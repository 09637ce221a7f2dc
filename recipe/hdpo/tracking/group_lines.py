"""What became of every prompt of a step: ``hdpo_groups/STEP.jsonl``, one JSON line each, beside verl's own file.

A line has the prompt's ``uid`` in this step, by which verl's rollouts and the kept trajectories are found (their keys
begin with it), and its ``problem``, which stays the same over steps. Of a cliff it tells the privileged prompt and each
scored privileged rollout, kept or not and why not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from recipe.hdpo.algorithm.cliff import GroupRecord

GROUP_FOLDER = "hdpo_groups"
# Fields of a GroupRecord that a line has as they are.
_COPIED = ("uid", "cliff_uid", "cliff", "solved", "reissued", "size", "successes", "lost_rollouts", "overlong")
_COUNTS = ("too_long", "no_solution", "no_feedback", "errors")


def group_lines(records: Iterable[GroupRecord]) -> list[dict[str, Any]]:
    """One line a record."""
    return [_line(record) for record in records]


def _line(record: GroupRecord) -> dict[str, Any]:
    line = {"problem": record.prompt_id, **{name: getattr(record, name) for name in _COPIED}}
    if record.cliff or record.reissued:
        # Privileged rollouts that have no reward, by reason.
        line["skipped"] = {name: count for name in _COUNTS if (count := getattr(record, name))}
        line["privileged"], line["attempts"] = record.privileged, record.told
    return line
