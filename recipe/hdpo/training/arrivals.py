"""Privileged rollouts under an asynchronous trainer: they join whichever batch is made when they are done.

A cliff's group is finished as soon as its plain rollouts are, so batches are not ordered by kind, and what verl evicts
for its age takes no privileged rollout with it: these lie in a partition of their own
(:data:`recipe.hdpo.transfer.CLIFFS`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord


@dataclass
class Arrivals:
    """Takes what has arrived, and counts it over a step.

    Attributes:
        max_staleness: versions of the weights that may lie between a kept trajectory and its use; None for any number.
        staleness: of the step's kept trajectories.
        too_stale: kept trajectories that were left out for it.
        running: cliffs whose privileged rollouts were not done at the last look.
    """

    max_staleness: int | None
    staleness: list[int] = field(default_factory=list)
    too_stale: int = 0
    running: int = 0

    def take(self, step: int) -> tuple[KVBatchMeta, dict[str, GroupRecord]]:
        """Kept rows of all cliffs that are done, and the records of these, by key.

        The rows stay in TransferQueue until they are trained on; everything else of these cliffs leaves it.

        Args:
            step: the training step; the weights that it begins with are version ``step - 1``.
        """
        items: dict[str, Any] = (tq.kv_list(transfer.CLIFFS) or {}).get(transfer.CLIFFS, {})
        cliffs = {key: tag["status"] for key, tag in items.items() if tag.get("is_prompt", False)}
        done = {uid for uid, status in cliffs.items() if status == "finished"}
        self.running = len(cliffs) - len(done)
        found = {key: tag for key, tag in items.items() if key not in cliffs and key.split("_")[0] in done}
        _, kept, records = transfer.split_batch(KVBatchMeta([*found], [*found.values()], transfer.CLIFFS))
        stale = [key for key, tag in zip(kept.keys, kept.tags, strict=True) if self._is_stale(tag, step)]
        for key in stale:
            record = records[transfer.record_key(key.split("_")[0])]
            record.kept, record.kept_tokens = record.kept - 1, record.kept_tokens - found[key]["num_distilled"]
            record.kept_signs.pop(key, None)
            # A checkpoint of an earlier version has rows without one.
            if (source := found[key].get(transfer.SOURCE)) is not None:
                record.count(source, kept=-1)
        self.too_stale += len(stale)
        fresh = kept.select_keys([key for key in kept.keys if key not in stale])
        self.staleness += [_staleness(tag, step) for tag in fresh.tags]
        if done:
            tq.kv_clear(keys=[*done, *records, *stale], partition_id=transfer.CLIFFS)
        return fresh, records

    def _is_stale(self, tag: dict[str, Any], step: int) -> bool:
        return self.max_staleness is not None and _staleness(tag, step) > self.max_staleness

    def metrics(self) -> dict[str, float]:
        """Of the step, for which counting begins anew. Means over no trajectory are left out."""
        metrics: dict[str, float] = {"hdpo/kept_too_stale": self.too_stale, "hdpo/running_cliffs": self.running}
        if self.staleness:
            metrics["hdpo/kept_staleness_mean"] = sum(self.staleness) / len(self.staleness)
            metrics["hdpo/kept_staleness_max"] = max(self.staleness)
        self.staleness, self.too_stale = [], 0
        return metrics


def _staleness(tag: dict[str, Any], step: int) -> int:
    """Versions of the weights between those that a trajectory was begun with and those that ``step`` begins with."""
    return step - 1 - int(tag["min_global_steps"])
