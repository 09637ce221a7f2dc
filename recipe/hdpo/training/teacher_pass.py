"""The teacher pass: the teacher's top-k at every token that is distilled, without a gradient.

The teacher reads the privileged prompt and then the same response ids that the student will read after the plain
prompt. It uses verl's engine, so packing, dynamic micro-batches and FSDP work as they do for log-probabilities.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id, get_torch_device
from verl.workers.engine_workers import TrainingWorker

from recipe.hdpo.algorithm.softmax_rows import to_device
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, teacher_topk
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.training import mini_batch
from recipe.hdpo.training.token_slices import of_all_slices, own_slice


class TopKCollector:
    """verl's loss function for an inference pass that keeps the top-k and computes no loss."""

    def __init__(self, hdpo: HDPOConfig) -> None:
        self.hdpo = hdpo
        self.targets: dict[int, TeacherTopK] = {}

    def __call__(
        self,
        model_output: dict | None = None,
        data: TensorDict | None = None,
        dp_group: Any = None,
        student_logits: torch.Tensor | None = None,
    ) -> Any:
        """Called by verl's engine, in one of two ways for every micro-batch: ``prepare_model_outputs`` gives
        ``student_logits``, shape (1, N, V), and ``data``; ``forward_step`` all but the logits, and gets a loss of 0."""
        assert data is not None
        if student_logits is None:
            return torch.zeros((), device=data["input_ids"].device), {}
        logits = self.logits(student_logits, data)
        self.collect(data, mini_batch.row_info(data), len(logits[0]), functools.partial(self.top_k, logits))
        return {}

    def collect(
        self,
        data: TensorDict,
        info: Sequence[mini_batch.RowInfo],
        size: int,
        read: Callable[[torch.Tensor, torch.Tensor], TeacherTopK],
    ) -> None:
        """Keep what the teacher says at the distilled tokens of a micro-batch.

        Args:
            data: the micro-batch, of which the tokens are read.
            info: of its rows.
            size: packed tokens of this rank's slice.
            read: the top-k at positions of the slice, and log-probabilities of the tokens that follow them there.
        """
        positions, privileged = mini_batch.response_positions(info)
        if not privileged:
            return
        is_own, own = own_slice(positions, size)
        tokens = data["input_ids"].values()
        following = tokens[to_device(positions[is_own] + 1, tokens.device)]
        # Kept for the whole update, 12 k bytes a token: not on the accelerator.
        found, lengths = (
            of_all_slices(read(own, following), is_own).to_host(),
            [row.num_distilled for row in privileged],
        )
        assert found.response_log_probs is not None
        parts = (part.split(lengths) for part in (found.ids, found.log_probs, found.response_log_probs))
        for row, *of_row in zip(privileged, *parts, strict=True):
            self.targets[row.row_id] = TeacherTopK(*of_row)

    def logits(self, student_logits: torch.Tensor, data: TensorDict) -> tuple[torch.Tensor, ...]:
        """What the teacher's distribution is made of, each (N, V); called for every micro-batch on every rank."""
        return (student_logits.squeeze(0),)

    def top_k(self, logits: tuple[torch.Tensor, ...], rows_M: torch.Tensor, labels_M: torch.Tensor) -> TeacherTopK:
        """The teacher's top-k at the named rows, M of N, and its log-probabilities of the labels, on the device."""
        chunk_size = self.hdpo.divergence.chunk_size
        return teacher_topk(logits[0], self.hdpo.topk, rows_M=rows_M, labels_M=labels_M, chunk_size=chunk_size)


def read_topk(
    worker: TrainingWorker,
    batch: TensorDict,
    hdpo: HDPOConfig,
    *,
    weights: AbstractContextManager[Any] | None = None,
    collector: TopKCollector | None = None,
) -> dict[int, TeacherTopK]:
    """One inference pass of ``worker``'s weights over privileged sequences.

    Args:
        worker: any worker of verl's on these ranks.
        batch: rows of :func:`recipe.hdpo.training.mini_batch.sequence_batch` whose prompts are the privileged ones,
            with the sampling temperature. The same number of rows on every rank.
        weights: puts other weights in the place of the worker's during the pass; entered when they are on the device.
        collector: for a teacher that is more than the worker's model.

    Returns:
        the teacher's top-k by row id.
    """
    assign_engine_settings(
        worker,
        batch,
        training=False,
        calculate_entropy=False,
        distillation_use_topk=True,
        # Leaves out verl's log-probabilities of the sequences: those of the responses come with the top-k.
        distillation_only=True,
    )
    collector = collector or TopKCollector(hdpo)
    with worker.engine.eval_mode(), weights or nullcontext():
        worker.engine.infer_batch(batch, loss_function=collector)
    # The copies to the host were not waited for one by one.
    get_torch_device().synchronize()
    return collector.targets


def hard_labels(responses: Mapping[int, torch.Tensor]) -> dict[int, TeacherTopK]:
    """The distilled tokens themselves as a teacher with all its mass on them, by row id.

    KL(one-hot || q) is -ln q(token): with the kind "forward_kl" this is cross entropy on the kept rollouts.
    """
    return {
        i: TeacherTopK(ids=tokens[:, None], log_probs=torch.zeros(len(tokens), 1, device=tokens.device))
        for i, tokens in responses.items()
    }


def _longest_row(worker: TrainingWorker, batch: TensorDict) -> int:
    """Tokens of the longest row of all ranks: verl compares that one with each rank's budget."""
    longest = int(batch["input_ids"].offsets().diff().max()) if len(batch) else 0
    if not torch.distributed.is_initialized():
        return longest
    of_all = torch.tensor(longest, device=get_device_id())
    group = worker.engine.get_data_parallel_group()
    torch.distributed.all_reduce(of_all, torch.distributed.ReduceOp.MAX, group=group)
    return int(of_all.item())


def assign_engine_settings(worker: TrainingWorker, batch: TensorDict, *, training: bool, **settings: Any) -> None:
    """Set packing and micro-batching of ``worker`` on a batch, as its ``train_batch`` or ``infer_batch`` would.

    Args:
        training: which of the two token budgets and micro-batch sizes count.
        settings: further scalars for the engine.
    """
    config = worker.engine_config
    # An inference pass is the teacher's: a row that is longer than verl's budget gets a micro-batch of its own.
    longest = 0 if training else _longest_row(worker, batch)
    # verl multiplies the budget by this.
    longest = math.ceil(longest / config.ulysses_sequence_parallel_size)
    size = config.micro_batch_size_per_gpu if training else config.infer_micro_batch_size_per_gpu
    tu.assign_non_tensor(
        batch,
        use_remove_padding=worker.model_config.get("use_remove_padding", False),
        use_dynamic_bsz=config.use_dynamic_bsz,
        max_token_len_per_gpu=config.max_token_len_per_gpu
        if training
        # Read for dynamic micro-batches alone; else it may be null.
        else max(config.infer_max_token_len_per_gpu or 0, longest),
        # The engine wants it to divide the number of rows.
        micro_batch_size_per_gpu=max(d for d in range(1, (size or 1) + 1) if len(batch) % d == 0),
        use_fused_kernels=False,
        **settings,
    )
