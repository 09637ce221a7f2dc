"""What verl's asynchronous replay buffer throws away: groups that are too old, and groups in which a rollout was lost.

It puts a new prompt in the place of each, without an end and without a look at what the group was.
"""

from __future__ import annotations

from typing import Any

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord


class Evictions:
    """Counts over a step what a replay buffer evicts, and stops a run in which too many groups fail.

    Args:
        buffer: verl's ``ReplayBufferAsync``.
        asked: groups of a step.
        most: ``hdpo.max_lost_rollouts``. verl throws a group away for one lost rollout, so all of its rollouts are.
    """

    def __init__(self, buffer: Any, asked: int, most: float) -> None:
        self.asked, self.most = asked, most
        self.failed: list[GroupRecord] = []
        self.stale_cliffs = 0
        evict = buffer._evict_terminal_groups

        def noting(global_steps: int, partition_id: str, reasons: tuple[set[str], set[str], set[str], Any]) -> Any:
            tags = buffer.partitions[partition_id]
            stale, _, failed, _ = reasons
            if partition_id == transfer.TRAIN:
                self._note(global_steps, _records(tags, failed), _records(tags, stale - failed))
            return evict(global_steps, partition_id, reasons)

        buffer._evict_terminal_groups = noting

    def _note(self, step: int, failed: list[GroupRecord], stale: list[GroupRecord]) -> None:
        self.stale_cliffs += sum(record.cliff for record in stale)
        self.failed += failed
        if failed and len(self.failed) > self.most * self.asked:
            first = min(self.failed, key=lambda record: record.first_error_at)
            raise RuntimeError(
                f"step {step}: {len(self.failed)} groups lost a rollout and were replaced, beside {self.asked} that "
                f"were asked for; hdpo.max_lost_rollouts={self.most:g} allows no more; the first error was: "
                f"{first.first_error}"
            )

    def metrics(self) -> dict[str, float]:
        """Of the step, for which counting begins anew."""
        metrics: dict[str, float] = {
            "hdpo/lost_rollouts": sum(record.lost_rollouts for record in self.failed),
            "hdpo/unscored_rollouts": sum(record.unscored for record in self.failed),
            "hdpo/evicted_cliffs": self.stale_cliffs,
        }
        self.failed, self.stale_cliffs = [], 0
        return metrics


def _records(tags: dict[str, dict], uids: set[str]) -> list[GroupRecord]:
    found = [tags.get(transfer.record_key(uid)) for uid in uids]
    return [record for tag in found if tag is not None and (record := transfer.record_of(tag))]
