"""Ulysses sequence parallelism: each rank of a group holds one slice of a micro-batch's packed tokens.

verl pads the packed axis at its end and cuts it into slices of one size. Attention swaps tokens for heads between the
ranks; all else, and the head too, sees a slice alone. Without sequence parallelism the slice is everything.
"""

from __future__ import annotations

import torch
from verl.utils.ulysses import get_ulysses_sequence_parallel_group, get_ulysses_sequence_parallel_rank

from recipe.hdpo.algorithm.softmax_rows import to_device
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK


def own_slice(positions: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which positions of the packed axis stand in this rank's slice, and where in it.

    Args:
        positions: int64, on the host.
        size: tokens of a slice.

    Returns:
        is_own: bool, one per position.
        local: int64, the positions of those that are, counted from the slice's begin.
    """
    local = positions - get_ulysses_sequence_parallel_rank() * size
    is_own = (local >= 0) & (local < size)
    return is_own, local[is_own]


def of_all_slices(own: TeacherTopK, is_own: torch.Tensor) -> TeacherTopK:
    """The top-k at all positions, on every rank of the group, from the ranks' disjoint parts.

    Args:
        own: the rows at this rank's positions.
        is_own: as :func:`own_slice` returns it.
    """
    group = get_ulysses_sequence_parallel_group()
    if group is None:
        return own
    index = to_device(is_own.nonzero()[:, 0], own.ids.device)
    whole = []
    for part in (own.ids, own.log_probs, own.response_log_probs):
        if part is None:
            continue
        rows = part.new_zeros(len(is_own), *part.shape[1:]).index_copy_(0, index, part)
        # Every row is written on one rank, and 0 on the others.
        torch.distributed.all_reduce(rows, group=group)
        whole.append(rows)
    return TeacherTopK(*whole)
