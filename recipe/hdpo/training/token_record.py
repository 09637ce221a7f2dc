"""What the update's own forward says of single tokens, for people to read (``recipe.hdpo.cliffs``).

Of every distilled token: its divergence, the student's log-probability of it, and the most likely tokens of teacher and
student. All of it is computed for the loss anyhow. It is taken down where ``trainer.rollout_data_dir`` is set, at the
first visit of a trajectory in its step, before any clip or weight, and for :data:`MAX_TOKENS` a step at most.

A record is a float32 tensor of :data:`WIDTH` numbers a token, flat, so that it can travel as a field of TransferQueue::

    D_t, sum_S q, sum_S p, ln q(y_t), T times (id, ln p, ln q) of the teacher's tops, T times the same of the student's

The student's tops are those within S, the teacher's top-k. A place beyond k holds NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transfer_queue import KVBatchMeta

from recipe.hdpo.algorithm.softmax_rows import to_device
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK
from recipe.hdpo.training import mini_batch

# T, how many of the most likely tokens.
TOPS = 4
WIDTH = 4 + 6 * TOPS
# Distilled tokens whose records a step may hold: 11 MB in memory, about as much on disk.
MAX_TOKENS = 100_000


def keys_to_record(kept: KVBatchMeta) -> tuple[str, ...]:
    """The first of the step's kept trajectories, as many as hold :data:`MAX_TOKENS` distilled tokens; at least one."""
    chosen: list[str] = []
    tokens = 0
    for key, tag in zip(kept.keys, kept.tags, strict=True):
        tokens += tag["num_distilled"]
        if chosen and tokens > MAX_TOKENS:
            break
        chosen.append(key)
    return tuple(chosen)


class TokenRecords:
    """Takes down one rank's part of a step.

    Args:
        wanted: ids of the rows to record.
    """

    def __init__(self, wanted: set[int]) -> None:
        self.wanted = wanted
        self.found: dict[int, torch.Tensor] = {}

    def take(self, info: Sequence[mini_batch.RowInfo], columns: Sequence[torch.Tensor]) -> None:
        """Keep what is said of the rows of a micro-batch that are wanted and not yet there.

        Args:
            info: of the micro-batch's rows.
            columns: of all its packed tokens, (N,) each: divergence, student's and teacher's mass, the 3 T tops of
                :func:`~recipe.hdpo.algorithm.divergence.student_tops`, log-probability.
        """
        positions, privileged = mini_batch.response_positions(info)
        if not any(self._is_new(row.row_id) for row in privileged):
            return
        # It stays on the device until the update is over: nothing waits.
        index = to_device(positions, columns[0].device)
        table = torch.stack([column.detach().index_select(0, index).float() for column in columns], 1)
        for row, part in zip(privileged, table.split([row.num_distilled for row in privileged]), strict=True):
            if self._is_new(row.row_id):
                self.found[row.row_id] = part

    def _is_new(self, row_id: int) -> bool:
        return row_id in self.wanted and row_id not in self.found

    def rows(self, targets: Mapping[int, TeacherTopK]) -> dict[int, torch.Tensor]:
        """The records by row id, on the host, with the teacher's side added."""
        return {row_id: _record(table.cpu(), targets[row_id]) for row_id, table in self.found.items()}


def _record(table: torch.Tensor, teacher: TeacherTopK) -> torch.Tensor:
    count, best = len(table), min(TOPS, teacher.ids.shape[1])
    ids, log_probs = teacher.ids.cpu(), teacher.log_probs.cpu().float()
    at_teachers, places, at_own = table[:, 3 : 3 + 3 * TOPS].unflatten(1, (3, TOPS)).unbind(1)
    places = places[:, :best].long()
    # float32 holds every id below 2^24 exactly.
    tops = torch.full((count, 2, TOPS, 3), float("nan"))
    tops[:, 0, :best] = torch.stack([ids[:, :best].float(), log_probs[:, :best], at_teachers[:, :best]], -1)
    own = [ids.gather(1, places).float(), log_probs.gather(1, places), at_own[:, :best]]
    tops[:, 1, :best] = torch.stack(own, -1)
    return torch.cat([table[:, :3], table[:, -1:], tops.flatten(1)], 1).flatten()
