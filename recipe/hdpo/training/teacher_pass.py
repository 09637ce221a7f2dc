"""The teacher pass: the teacher's top-k at every position of the kept responses, without a gradient.

The teacher reads the privileged prompt and then the same response ids that the student will read after the plain
prompt. It uses verl's engine, so packing, dynamic micro-batches and FSDP work as they do for log-probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_torch_device
from verl.workers.engine_workers import TrainingWorker

from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, teacher_topk
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.training import mini_batch


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
        positions, privileged = mini_batch.response_positions(mini_batch.row_info(data))
        if privileged:
            topk = teacher_topk(
                student_logits.squeeze(0),
                self.hdpo.topk,
                rows_M=positions,
                chunk_size=self.hdpo.divergence.chunk_size,
            )
            # Kept for the whole update, 12 k bytes a token: not on the accelerator.
            topk, lengths = topk.to_host(), [row.response_length for row in privileged]
            parts = zip(privileged, topk.ids.split(lengths), topk.log_probs.split(lengths), strict=True)
            self.targets |= {row.row_id: TeacherTopK(ids=ids, log_probs=log_probs) for row, ids, log_probs in parts}
        return {}


def read_topk(worker: TrainingWorker, batch: TensorDict, hdpo: HDPOConfig) -> dict[int, TeacherTopK]:
    """One inference pass of ``worker``'s current weights over privileged sequences.

    Args:
        batch: rows of :func:`recipe.hdpo.training.mini_batch.sequence_batch` whose prompts are the privileged ones,
            with the sampling temperature. The same number of rows on every rank.

    Returns:
        the teacher's top-k by row id.
    """
    assign_engine_settings(
        worker, batch, training=False, calculate_entropy=False, distillation_use_topk=True, distillation_only=True
    )
    collector = TopKCollector(hdpo)
    with worker.engine.eval_mode():
        worker.engine.infer_batch(batch, loss_function=collector)
    # The copies to the host were not waited for one by one.
    get_torch_device().synchronize()
    return collector.targets


def hard_labels(responses: Mapping[int, torch.Tensor]) -> dict[int, TeacherTopK]:
    """The response's own tokens as a teacher with all its mass on them, by row id.

    KL(one-hot || q) is -ln q(token): with the kind "forward_kl" this is cross entropy on the kept rollouts.
    """
    return {
        i: TeacherTopK(ids=tokens[:, None], log_probs=torch.zeros(len(tokens), 1, device=tokens.device))
        for i, tokens in responses.items()
    }


def assign_engine_settings(worker: TrainingWorker, batch: TensorDict, *, training: bool, **settings: Any) -> None:
    """Set packing and micro-batching of ``worker`` on a batch, as its ``train_batch`` or ``infer_batch`` would.

    Args:
        training: which of the two token budgets and micro-batch sizes count.
        settings: further scalars for the engine.
    """
    config = worker.engine_config
    # An inference pass is the teacher's: a row that is longer than verl's budget gets a micro-batch of its own.
    longest = 0 if training or not len(batch) else int(batch["input_ids"].offsets().diff().max())
    size = config.micro_batch_size_per_gpu if training else config.infer_micro_batch_size_per_gpu
    tu.assign_non_tensor(
        batch,
        use_remove_padding=worker.model_config.get("use_remove_padding", False),
        use_dynamic_bsz=config.use_dynamic_bsz,
        max_token_len_per_gpu=config.max_token_len_per_gpu
        if training
        else max(config.infer_max_token_len_per_gpu, longest),
        # The engine wants it to divide the number of rows.
        micro_batch_size_per_gpu=max(d for d in range(1, (size or 1) + 1) if len(batch) % d == 0),
        use_fused_kernels=False,
        **settings,
    )
