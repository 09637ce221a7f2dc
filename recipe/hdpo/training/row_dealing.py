"""Which mini-batch and which rank gets which kept trajectory.

Mini-batches first, then ranks: how many mini-batches have a distillation term, and which rows it holds, then depends
neither on the number of ranks nor on how a rank cuts its micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions


def deal(lengths: Sequence[int], num_mini_batches: int, num_ranks: int) -> list[list[list[int]]]:
    """Deal the rows of one step.

    Args:
        lengths: tokens of every row.
        num_mini_batches: optimizer steps of one epoch over the batch.
        num_ranks: data-parallel ranks.

    Returns:
        row numbers by mini-batch and rank; every row once. Mini-batches hold consecutive rows, and their sizes differ
        by at most one row; within a mini-batch ranks are even in tokens, and in rows to within one.
    """
    mini_batches = torch.arange(len(lengths)).tensor_split(num_mini_batches)
    return [_over_ranks(rows.tolist(), lengths, num_ranks) for rows in mini_batches]


def _over_ranks(rows: list[int], lengths: Sequence[int], num_ranks: int) -> list[list[int]]:
    if len(rows) < num_ranks:
        return [rows[rank : rank + 1] for rank in range(num_ranks)]
    padded = [lengths[row] for row in rows] + [0] * (-len(rows) % num_ranks)
    parts = get_seqlen_balanced_partitions(padded, k_partitions=num_ranks, equal_size=True)
    return [[rows[i] for i in part if i < len(rows)] for part in parts]
