"""A mini-batch of two kinds of rows: verl's rollout rows, and privileged rows, which only the distillation term reads.

A privileged row is a kept trajectory (:mod:`recipe.hdpo.transfer`). In a mini-batch it stands beside rollout rows, with
zeros in every field of the policy loss, and with its id in :data:`ROW_INFO`, on the host: what the loss needs of the
rows' shapes, it need not read off an accelerator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from tensordict import NonTensorData, TensorDict
from verl.utils import tensordict_utils as tu

from recipe.hdpo.algorithm.softmax_rows import to_device

# Per row of a mini-batch: a RowInfo, as verl's non-tensor data.
ROW_INFO = "hdpo_row_info"
# In place of the id of a privileged row.
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


class RowInfo(NamedTuple):
    """What the host knows of a row of a mini-batch.

    Attributes:
        row_id: the id of a privileged row, >= 0; :data:`ROLLOUT_ROW` or :data:`DUMMY_ROW` for others.
        prompt_length, response_length: tokens.
        response_mask: of a privileged row, one byte a response token, 1 for what the model wrote and 0 for what a tool
            or an environment did; None where the model wrote everything.
    """

    row_id: int
    prompt_length: int
    response_length: int
    response_mask: bytes | None = None

    @property
    def length(self) -> int:
        """Tokens of the whole sequence."""
        return self.prompt_length + self.response_length

    @property
    def num_distilled(self) -> int:
        """Response tokens that the model wrote."""
        return self.response_length if self.response_mask is None else sum(self.response_mask)

    def is_distilled(self) -> torch.Tensor:
        """Whether the model wrote a response token, bool, one per token, on the host."""
        if self.response_mask is None:
            return torch.ones(self.response_length, dtype=torch.bool)
        return torch.tensor(list(self.response_mask), dtype=torch.bool)


class KeptRow(NamedTuple):
    """A kept trajectory on its rank, or a dummy of two tokens that makes the ranks' numbers of rows equal.

    Example:
        ``KeptRow(torch.tensor([5, 9]), torch.tensor([5, 7, 9]), torch.tensor([3, 2]), torch.tensor([1, 1]), row_id=0)``

    Attributes:
        student_prompt, teacher_prompt, response: token ids, 1-D int64.
        response_mask: of the response's tokens, 1 for those that are distilled, 1-D int64.
        row_id: as in :class:`RowInfo`.
    """

    student_prompt: torch.Tensor
    teacher_prompt: torch.Tensor
    response: torch.Tensor
    response_mask: torch.Tensor
    row_id: int


def nested(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """A jagged nested tensor of 1-D tensors."""
    return torch.nested.as_nested_tensor(list(tensors), layout=torch.jagged)


def sequence_batch(
    prompts: Sequence[torch.Tensor],
    responses: Sequence[torch.Tensor],
    row_ids: Sequence[int],
    response_masks: Sequence[torch.Tensor] | None = None,
) -> TensorDict:
    """The fields that verl's engine reads of rows without a policy loss.

    Args:
        prompts, responses: token ids of each row, 1-D int64.
        row_ids: ids of the rows, as in :class:`RowInfo`.
        response_masks: as in :class:`KeptRow`, on the host; None where the model wrote everything.
    """
    sequences = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    batch = {
        "prompts": nested(prompts),
        "responses": nested(responses),
        "input_ids": nested(sequences),
        "position_ids": nested([torch.arange(len(s)) for s in sequences]),
        "loss_mask": nested([torch.zeros_like(r) for r in responses]),
    }
    found = TensorDict(batch, batch_size=[len(sequences)])
    masks = [None] * len(sequences) if response_masks is None else [_as_bytes(mask) for mask in response_masks]
    columns = zip(row_ids, prompts, responses, masks, strict=True)
    info = [RowInfo(i, len(p), len(r), mask) for i, p, r, mask in columns]
    tu.assign_non_tensor_stack(found, ROW_INFO, info)
    return found


def _as_bytes(response_mask: torch.Tensor) -> bytes | None:
    return None if response_mask.all() else bytes((response_mask != 0).tolist())


def append_privileged_rows(rollouts: TensorDict, privileged: TensorDict) -> TensorDict:
    """A mini-batch with both kinds of rows: the rollout rows first, in their order.

    Args:
        rollouts: verl's mini-batch, nested tensors.
        privileged: rows of :func:`sequence_batch`.

    Returns:
        the joint mini-batch with the fields that engine and policy loss read; scalars (temperature, sizes) are kept.
    """
    info = row_info(privileged)
    merged: dict[str, torch.Tensor] = {}
    for name in SEQUENCE_FIELDS:
        merged[name] = nested([*rollouts[name].unbind(), *privileged[name].unbind()])
    for name in RESPONSE_FIELDS:
        if name in rollouts:
            like = rollouts[name]
            zeros = [torch.zeros(row.response_length, dtype=like.dtype, device=like.device) for row in info]
            merged[name] = nested([*rollouts[name].unbind(), *zeros])
    info = row_info(rollouts) + info
    batch = TensorDict(merged, batch_size=[len(info)])
    tu.assign_non_tensor_stack(batch, ROW_INFO, info)
    for key, value in rollouts.items():
        if isinstance(value, NonTensorData):
            tu.assign_non_tensor_data(batch, key, value.data)
    return batch


def row_info(batch: TensorDict) -> list[RowInfo]:
    """What the host knows of a batch's rows, in their order; a batch of rollout rows alone may have no such field."""
    if ROW_INFO in batch:
        return [RowInfo(*row) for row in tu.get(batch, ROW_INFO)]
    lengths = (batch[name].offsets().diff().tolist() for name in ("prompts", "responses"))
    return [RowInfo(ROLLOUT_ROW, *pair) for pair in zip(*lengths, strict=True)]


def response_positions(info: Sequence[RowInfo]) -> tuple[torch.Tensor, list[RowInfo]]:
    """Where the logits that predict the distilled tokens stand in the packed token axis of a micro-batch.

    Args:
        info: of the micro-batch's rows.

    Returns:
        positions: int64, on the host, one per distilled token of the privileged rows, in the batch's order of rows,
            ascending: :attr:`RowInfo.num_distilled` of each. The token at p is predicted by the logits at p - 1.
        privileged: those rows, in the same order.
    """
    privileged = [row for row in info if row.row_id >= 0]
    positions = predicting_positions(info, [row.row_id >= 0 for row in info])
    if any(row.response_mask is not None for row in privileged):
        positions = positions[torch.cat([row.is_distilled() for row in privileged])]
    return positions, privileged


def predicting_positions(info: Sequence[RowInfo], wanted: Sequence[bool]) -> torch.Tensor:
    """As :func:`response_positions`, of all response tokens of the wanted rows."""
    positions, end = [torch.empty(0, dtype=torch.int64)], 0
    for row, is_wanted in zip(info, wanted, strict=True):
        end += row.length
        if is_wanted:
            positions.append(torch.arange(end - row.response_length - 1, end - 1))
    return torch.cat(positions)


def rollout_rows(
    batch: TensorDict, model_output: Mapping[str, torch.Tensor]
) -> tuple[TensorDict, dict[str, torch.Tensor]]:
    """The rollout rows of a micro-batch, and of nested per-token outputs of the model, without waiting for a device.

    Returns:
        the batch with all its nested fields and scalars, and the outputs, each with the rollout rows alone.
    """
    info = row_info(batch)
    of_length = {
        "prompts": _Selection(info, [row.prompt_length for row in info]),
        "sequence": _Selection(info, [row.length for row in info]),
        "response": _Selection(info, [row.response_length for row in info]),
    }
    kind = {"prompts": "prompts", **dict.fromkeys(("responses", *RESPONSE_FIELDS), "response")}
    fields = {
        name: of_length[kind.get(name, "sequence")](batch[name])
        for name in (*SEQUENCE_FIELDS, *RESPONSE_FIELDS)
        if name in batch
    }
    selected = TensorDict(fields, batch_size=[len(of_length["sequence"].lengths)])
    for key, value in batch.items():
        if isinstance(value, NonTensorData):
            tu.assign_non_tensor_data(selected, key, value.data)
    return selected, {name: of_length["sequence"](tensor) for name, tensor in model_output.items()}


class _Selection:
    """Takes the rollout rows out of nested tensors whose rows all have the given lengths."""

    def __init__(self, info: Sequence[RowInfo], lengths: Sequence[int]) -> None:
        is_rollout = torch.tensor([row.row_id == ROLLOUT_ROW for row in info])
        on_host = torch.tensor(list(lengths))
        self.lengths, self.num_values = on_host[is_rollout], int(on_host.sum())
        self.index = is_rollout.repeat_interleave(on_host).nonzero().squeeze(1)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        values = tensor.values()
        assert len(values) == self.num_values, f"{len(values)} values, but rows of {self.num_values} in all"
        offsets = torch.nn.functional.pad(self.lengths.cumsum(0), (1, 0))
        return torch.nested.nested_tensor_from_jagged(
            values.index_select(0, to_device(self.index, values.device)),
            to_device(offsets, values.device),
            min_seqlen=int(self.lengths.min()),
            max_seqlen=int(self.lengths.max()),
        )
