"""What verl's metrics of an optimizer step say of one that privileged rows take part in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recipe.hdpo.training.mini_batch import RowInfo


def count_tokens(rows: Sequence[RowInfo], group: Any) -> tuple[int, list[int]]:
    """Tokens of one mini-batch's privileged rows on all ranks.

    Args:
        rows: this rank's, dummies among them.
        group: of the data-parallel ranks.

    Returns:
        N_tok, the number of distilled tokens; and the length of every row, as verl's count of FLOPs wants them.
    """
    own = [(row.length, row.num_distilled if row.row_id >= 0 else 0) for row in rows]
    parts: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(parts, own, group)
    found = [row for part in parts for row in part]
    return sum(distilled for _, distilled in found), [length for length, _ in found]


def average_over_micro_batches(metrics: dict[str, Any]) -> None:
    """Turn each metric that is plain numbers by rank and micro-batch into one number, in place: the mean over ranks of
    their means over micro-batches.

    So every mini-batch hands one number on, as in verl, which takes the mean over mini-batches: those that have many
    micro-batches, as the ones with privileged rows do, would count more than the others.
    """
    for name, by_rank in metrics.items():
        if isinstance(by_rank, list) and all(_numbers(part) for part in by_rank):
            metrics[name] = float(np.mean([np.mean(part) for part in by_rank]))


def _numbers(part: Any) -> bool:
    return isinstance(part, list) and bool(part) and all(isinstance(value, int | float | np.number) for value in part)
