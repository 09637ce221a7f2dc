"""A mini-batch of two kinds of rows: verl's rollout rows, and privileged rows, which only the distillation term reads.

A privileged row is a kept trajectory (:mod:`recipe.hdpo.transfer`). In a mini-batch it stands beside rollout rows, with
zeros in every field of the policy loss, and with its id in :data:`ROW_ID`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from tensordict import NonTensorData, TensorDict
from verl.utils import tensordict_utils as tu

# Per row of a mini-batch: the id of a privileged row, or one of the two below.
ROW_ID = "hdpo_row_id"
ROLLOUT_ROW, DUMMY_ROW = -1, -2
# Number of distilled tokens of the mini-batch over all ranks, N_tok.
NUM_TOKENS = "hdpo_num_tokens"

# What engine and policy loss read of a mini-batch (verl.workers.utils.losses.ppo_loss); a privileged row fills
# the sequence fields from its tokens and the response fields with zeros.
SEQUENCE_FIELDS = ("prompts", "responses", "input_ids", "position_ids")
RESPONSE_FIELDS = (
    "response_mask",
    "loss_mask",
    "old_log_probs",
    "advantages",
    "ref_log_prob",
    "rollout_is_weights",
    "rollout_log_probs",
)


class KeptRow(NamedTuple):
    """A kept trajectory on its rank, or a dummy of two tokens that makes the ranks' numbers of rows equal.

    Example:
        ``KeptRow(torch.tensor([5, 9]), torch.tensor([5, 7, 7, 9]), torch.tensor([3, 2]), row_id=0)``

    Attributes:
        student_prompt, teacher_prompt, response: token ids, 1-D int64.
        row_id: as :data:`ROW_ID`.
    """

    student_prompt: torch.Tensor
    teacher_prompt: torch.Tensor
    response: torch.Tensor
    row_id: int


def nested(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """A jagged nested tensor of 1-D tensors."""
    return torch.nested.as_nested_tensor(list(tensors), layout=torch.jagged)


def sequence_batch(
    prompts: Sequence[torch.Tensor], responses: Sequence[torch.Tensor], row_ids: Sequence[int]
) -> TensorDict:
    """The fields that verl's engine reads of rows without a policy loss.

    Args:
        prompts, responses: token ids of each row, 1-D int64.
        row_ids: ids of the rows, as :data:`ROW_ID`.
    """
    sequences = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    batch = {
        "prompts": nested(prompts),
        "responses": nested(responses),
        "input_ids": nested(sequences),
        "position_ids": nested([torch.arange(len(s)) for s in sequences]),
        "loss_mask": nested([torch.zeros_like(r) for r in responses]),
        ROW_ID: torch.tensor(list(row_ids), dtype=torch.int64),
    }
    return TensorDict(batch, batch_size=[len(sequences)])


def append_privileged_rows(rollouts: TensorDict, privileged: TensorDict) -> TensorDict:
    """A mini-batch with both kinds of rows: the rollout rows first, in their order.

    Args:
        rollouts: verl's mini-batch, nested tensors.
        privileged: rows of :func:`sequence_batch`.

    Returns:
        the joint mini-batch with the fields that engine and policy loss read; scalars (temperature, sizes) are kept.
    """
    num_rollouts, lengths = rollouts.batch_size[0], privileged["responses"].offsets().diff().tolist()
    merged: dict[str, torch.Tensor] = {}
    for name in SEQUENCE_FIELDS:
        merged[name] = nested([*rollouts[name].unbind(), *privileged[name].unbind()])
    for name in RESPONSE_FIELDS:
        if name in rollouts:
            zeros = [torch.zeros(n, dtype=rollouts[name].dtype, device=rollouts[name].device) for n in lengths]
            merged[name] = nested([*rollouts[name].unbind(), *zeros])
    no_id = torch.full((num_rollouts,), ROLLOUT_ROW, dtype=torch.int64)
    merged[ROW_ID] = torch.cat([no_id, privileged[ROW_ID]])
    batch = TensorDict(merged, batch_size=[num_rollouts + len(lengths)])
    for key, value in rollouts.items():
        if isinstance(value, NonTensorData):
            tu.assign_non_tensor_data(batch, key, value.data)
    return batch


def response_positions(batch: TensorDict) -> tuple[torch.Tensor, list[int]]:
    """Where the logits that predict privileged responses stand in the packed token axis.

    Args:
        batch: a micro-batch with ``input_ids`` and ``responses`` (nested) and :data:`ROW_ID`.

    Returns:
        positions: int64, one per response token of the privileged rows, in the batch's order of rows. The token at
            position p is predicted by the logits at p - 1.
        row_ids: the privileged rows' ids in the same order.
    """
    ends = batch["input_ids"].offsets()[1:].tolist()
    lengths = batch["responses"].offsets().diff().tolist()
    positions, row_ids = [], []
    for row_id, end, length in zip(batch[ROW_ID].tolist(), ends, lengths, strict=True):
        if row_id >= 0:
            positions.append(torch.arange(end - length - 1, end - 1))
            row_ids.append(row_id)
    device = batch["input_ids"].device
    if not positions:
        return torch.empty(0, dtype=torch.int64, device=device), row_ids
    return torch.cat(positions).to(device), row_ids
