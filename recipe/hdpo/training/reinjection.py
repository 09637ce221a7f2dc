"""Delayed re-injection: a cliff that was distilled on rests, and then comes back until the student solves it by itself.

A problem whose privileged trajectories were kept is left out of the data for ``delay`` steps. Then it comes back ahead
of the data loader's order, in at most a share of each batch. Its first visit after the delay shows whether what was
distilled lasts. Solved, it is a problem like any other again; a cliff again, it is distilled on and rests anew.

Rows that the data loader gives meanwhile and that rest are passed over; the next ones take their places.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.algorithm.privileged_prompt import prompt_id

logger = logging.getLogger(__name__)

REINJECTION_FILE = "hdpo_reinjection.pt"


@dataclass
class Reinjection:
    """The trainer's memory of the cliffs that rest.

    Attributes:
        delay: D, steps between the step that distilled on a cliff and its first visit after it.
        share: of a batch that re-injected cliffs may make up; one at least.
        rows: data rows by problem, of the cliffs that rest and of those whose privileged rollouts are not known yet.
        due: by problem the first step in which it may come back.
        spare: rows that the data loader gave and no batch has had yet.
    """

    delay: int
    share: float
    rows: dict[str, TensorDict] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    spare: list[TensorDict] = field(default_factory=list)
    # Of the step at hand: its rows by problem, those that come after their delay, and how many were re-injected.
    _asked: dict[str, TensorDict] = field(default_factory=dict)
    _after_delay: set[str] = field(default_factory=set)
    _injected: int = 0
    _passed_over: int = 0

    def next_batch(self, step: int, size: int, fetch: Callable[[], TensorDict], most: int) -> TensorDict:
        """The prompts of a step, or those that verl asks for in the place of failed ones: none comes back twice.

        Args:
            fetch: the data loader's next rows.
            most: rows to look at before resting ones are taken too: with hardly any data, all of it may rest.
        """
        ready = sorted((due, p) for p, due in self.due.items() if due <= step and p not in self._asked)
        chosen = {problem: self.rows[problem] for _, problem in ready[: max(1, int(self.share * size))]}
        self._injected += len(chosen)
        batch, looked = list(chosen.values()), 0
        while len(batch) < size:
            if not self.spare:
                self.spare = _single_rows(fetch())
            row = self.spare.pop(0)
            problem, looked = _problem(row), looked + 1
            rests = problem in chosen or (problem in self.due and (problem in self._asked or self.due[problem] > step))
            if looked <= most and rests:
                self._passed_over += 1
                continue
            batch.append(row)
        rows = tu.concat_tensordict(batch)
        tu.assign_non_tensor_stack(rows, "uid", [str(uuid.uuid4()) for _ in batch])
        found = {_problem(row): row for row in batch}
        self._asked |= found
        self._after_delay |= {problem for problem in found if self.due.get(problem, step + 1) <= step}
        return rows

    def settle(self, step: int, records: Iterable[GroupRecord]) -> dict[str, float]:
        """Take in a step's records; returns its metrics."""
        visits = solved = 0
        for record in records:
            problem = record.prompt_id
            if not record.reissued:
                if problem in self._after_delay and (record.solved or record.cliff):
                    visits, solved = visits + 1, solved + record.solved
                    self._after_delay.discard(problem)
                    self._forget(problem)
                if record.cliff and problem in self._asked:
                    self.rows[problem] = self._asked[problem]
            if record.kept and problem in self.rows:
                self.due[problem] = step + self.delay
            elif record.reissued or record.rollouts:
                # Its privileged rollouts are done, and nothing was kept.
                self._forget(problem)
        # A cliff of this step may have its privileged rollouts in the next one; of one before, nothing more will come.
        self.rows = {p: row for p, row in self.rows.items() if p in self.due or p in self._asked}
        metrics = {
            "hdpo/reinjected_prompts": float(self._injected),
            "hdpo/resting_cliffs": float(sum(due > step for due in self.due.values())),
            "hdpo/passed_over_rows": float(self._passed_over),
            "hdpo/visits_after_delay": float(visits),
        }
        if visits:
            metrics["hdpo/solved_after_delay"] = solved / visits
        self._asked, self._after_delay, self._injected, self._passed_over = {}, set(), 0, 0
        return metrics

    def _forget(self, problem: str) -> None:
        self.rows.pop(problem, None)
        self.due.pop(problem, None)

    def save(self, folder: str) -> None:
        """Write it into a checkpoint folder; the file is whole or absent."""
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, REINJECTION_FILE)
        torch.save({"rows": self.rows, "due": self.due, "spare": self.spare}, path + ".tmp")
        os.replace(path + ".tmp", path)

    def load(self, folder: str) -> None:
        """Read what :meth:`save` wrote. A checkpoint without the file leaves none resting, and that is said.

        Raises:
            ValueError: the file cannot be read.
        """
        path = os.path.join(folder, REINJECTION_FILE)
        if not os.path.exists(path):
            logger.warning(f"no {path}: that run had hdpo.reinjection_delay=0, so no cliff rests")
            return
        try:
            # As verl reads the data loader's state beside it: rows hold any Python values.
            found = torch.load(path, weights_only=False)
            self.rows, self.due, self.spare = found["rows"], found["due"], found["spare"]
        except Exception as error:
            raise ValueError(
                f"{path} cannot be read ({type(error).__name__}: {error}): it was cut short. Resume from another "
                "checkpoint; or remove that file, and no cliff rests"
            ) from error


def _single_rows(batch: TensorDict) -> list[TensorDict]:
    return [tu.index_select_tensor_dict(batch, [i]) for i in range(len(batch))]


def _problem(row: TensorDict) -> str:
    source = row.get("data_source", None)
    messages = row["raw_prompt"][0]
    named = "" if source is None else str(row["data_source"][0])
    return prompt_id(messages if isinstance(messages, list) else list(np.asarray(messages, dtype=object)), named)
