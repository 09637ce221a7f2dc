"""What is known of a step's kept trajectories besides their tokens: signs of copying, and reliance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.algorithm.gate import RELIANCE

# In the line of a kept trajectory: its signs, as a dict; its reliance in nats a token, or null where it was not
# measured; and why it had no part in the loss, or null.
SIGNS, OF_RELIANCE, DROPPED = "hdpo_signs", "hdpo_reliance", "hdpo_dropped"


class KeptNotes:
    """Joined by the key of a trajectory's row; begun anew with each step.

    Args:
        least: the reliance below which a trajectory has no part in the loss; None: none is dropped for it.
    """

    def __init__(self, least: float | None) -> None:
        self.least = least
        self.signs: dict[str, dict[str, Any]] = {}
        self.reliance: dict[str, float] = {}

    def see(self, records: Iterable[GroupRecord]) -> None:
        """Take in what the agent-loop workers wrote."""
        for record in records:
            self.signs |= record.kept_signs

    def update(self, reliance: Mapping[str, float]) -> None:
        """Take in what an update of the actor found."""
        self.reliance |= reliance

    def dropped(self, key: str) -> str | None:
        """Why a kept trajectory has weight 0; None for one that counts."""
        value = self.reliance.get(key)
        return RELIANCE if value is not None and self.least is not None and value < self.least else None

    def metrics(self) -> dict[str, float]:
        """Of the step: means over the kept trajectories whose reliance was measured; left out where there is none."""
        found: dict[str, float] = {}
        if self.reliance:
            values = list(self.reliance.values())
            found["hdpo/reliance_mean"] = sum(values) / len(values)
            found["hdpo/reliance_min"] = min(values)
        if self.least is not None:
            found["hdpo/dropped_reliance"] = sum(self.dropped(key) is not None for key in self.reliance)
        return found

    def line(self, key: str) -> dict[str, Any]:
        """What the text record of a kept trajectory says of it."""
        return {SIGNS: self.signs.get(key), OF_RELIANCE: self.reliance.get(key), DROPPED: self.dropped(key)}

    def clear(self) -> None:
        """Begin a step."""
        self.signs, self.reliance = {}, {}
