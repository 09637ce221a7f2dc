"""Which prompts were cliffs at their last visit, over steps and restarts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from recipe.hdpo.algorithm.cliff import GroupRecord


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
        """Inverse of :meth:`state_dict`.

        Raises:
            TypeError: a field that is not known, or one that is no list of ids.
        """
        if not all(isinstance(ids, list) for ids in state.values()):
            raise TypeError("not every field is a list of problem ids")
        return cls(**{name: set(ids) for name, ids in state.items()})
