"""What the actor says of single trajectories, on its way to the trainer among verl's metrics."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from verl.utils.metric import AggregationType, Metric

# Name of the metric in the actor's output: a ByKey of each kept trajectory's reliance.
RELIANCE = "hdpo_reliance_by_key"


class ByKey(Metric):
    """A metric of verl's whose value is a number by TransferQueue key, the same on all ranks."""

    def __init__(self, values: Mapping[str, float] | None) -> None:
        super().__init__(AggregationType.MEAN)
        self.by_key = dict(values or {})

    def aggregate(self) -> Any:
        """The numbers by key; called by verl's reduce_metrics."""
        return dict(self.by_key)


def pop_reliance(metrics: MutableMapping[str, Any]) -> dict[str, float]:
    """Take the reliance by key out of a step's metrics, as verl's trainer has named it; empty where there is none."""
    return metrics.pop(f"actor/{RELIANCE}", {})
