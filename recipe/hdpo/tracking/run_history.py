"""What HDPO remembers from step to step, and saves with every checkpoint: open cliffs, and rates that may fall."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.algorithm.coefficient import CliffShare
from recipe.hdpo.tracking.cliff_history import CliffHistory
from recipe.hdpo.tracking.rung_metrics import rung_metrics
from recipe.hdpo.tracking.step_metrics import step_metrics
from recipe.hdpo.tracking.teacher_collapse import STUDENT, CollapseMonitor

logger = logging.getLogger(__name__)

HISTORY_FILE = "hdpo_history.json"


@dataclass
class History:
    """The trainer's memory.

    Attributes:
        teacher: see :class:`~recipe.hdpo.tracking.teacher_collapse.CollapseMonitor`; ``student`` watches the share of
            prompts with a correct rollout.
        cliffs: see :class:`~recipe.hdpo.tracking.cliff_history.CliffHistory`.
        cliff_share: see :class:`~recipe.hdpo.algorithm.coefficient.CliffShare`.
        knobs: the recipe's knobs of this run; a checkpoint of a run with others is loaded, and they are named.
        rows: of the training data; 0 where it is not known. verl goes on in the middle of the data, by a row's number.
        sources: of privileged text; with several, each is counted.
    """

    teacher: CollapseMonitor
    student: CollapseMonitor = field(default_factory=lambda: CollapseMonitor(0.0, STUDENT))
    cliffs: CliffHistory = field(default_factory=CliffHistory)
    cliff_share: CliffShare = field(default_factory=CliffShare)
    knobs: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    sources: tuple[str, ...] = ()

    def update(self, records: Sequence[GroupRecord]) -> dict[str, float]:
        """Take in one step's groups and return their metrics."""
        metrics = step_metrics(list(records), self.cliffs) | rung_metrics(records, self.sources)
        self.cliff_share.update(int(metrics["hdpo/cliffs"]), sum(not record.reissued for record in records))
        solved, rollouts = sum(r.solved_privileged for r in records), sum(r.rollouts for r in records)
        # A cliff that comes again is no new try of the student.
        groups = [record.solved for record in records if not record.reissued and (record.solved or record.cliff)]
        return metrics | self.teacher.update(solved, rollouts) | self.student.update(sum(groups), len(groups))

    def save(self, folder: str) -> None:
        """Write the file of a checkpoint folder; it is whole or absent."""
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, HISTORY_FILE)
        with open(path + ".tmp", "w", encoding="utf-8") as file:
            teacher, cliffs = self.teacher.state_dict(), self.cliffs.state_dict()
            share = self.cliff_share.state_dict()
            state = {"cliffs": cliffs, "teacher": teacher, "cliff_share": share, "knobs": self.knobs, "rows": self.rows}
            state["student"] = self.student.state_dict()
            json.dump(state, file)
        os.replace(path + ".tmp", path)

    def load(self, folder: str) -> None:
        """Read the file of a checkpoint folder. One that HDPO did not write leaves the history empty, and says so.

        Raises:
            ValueError: the file was cut short, or written by a version with other fields; nothing was taken over. Or
                the training data has fewer rows than it had then.
        """
        path = os.path.join(folder, HISTORY_FILE)
        if not os.path.exists(path):
            logger.warning(
                f"no cliff history at {path}: the checkpoint was not written by HDPO; the history starts empty"
            )
            return
        try:
            with open(path, encoding="utf-8") as file:
                state = json.load(file)
            cliffs, then = CliffHistory.from_state_dict(state["cliffs"]), _flat(state.get("knobs", self.knobs))
            share = CliffShare(**state.get("cliff_share", {}))
            teacher, student = replace(self.teacher), replace(self.student)
            teacher.load_state_dict(state["teacher"])
            # Checkpoints from before it have no such rate.
            student.load_state_dict(state.get("student", student.state_dict()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path} cannot be read ({type(error).__name__}: {error}): it was cut short, or written by another "
                "version. Resume from another checkpoint; or remove that file, and the run goes on from these weights "
                "with an empty history: cliffs count as new, and the teacher's solve rate starts anew"
            ) from error
        self.teacher, self.student, self.cliffs, self.cliff_share = teacher, student, cliffs, share
        now = _flat(self.knobs)
        self._compare_rows(state.get("rows", 0), folder)
        changed = [f"{key}={then.get(key)}" for key in now if then.get(key) != now[key]]
        if changed:
            logger.warning(
                f"{folder} was written by a run with {', '.join(changed)}, which are other values than this run's, and "
                "this run goes on from its weights. If it is to be an arm of its own, give it a "
                "trainer.experiment_name of its own"
            )

    def _compare_rows(self, then: int, folder: str) -> None:
        if not self.rows or not then or then == self.rows:
            return
        what = f"the training data has {self.rows} rows, and had {then} when {folder} was written"
        anew = f"remove {os.path.join(folder, 'data.pt')} to begin the data anew with these weights"
        if self.rows < then:
            raise ValueError(f"{what}: verl would go on behind its end. Put the old data back, or {anew}")
        logger.warning(
            f"{what}: this run goes on from the row at which that one stopped, in another order. To avoid that, {anew}"
        )


def _flat(knobs: Mapping[str, Any], prefix: str = "hdpo.") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in knobs.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return flat
