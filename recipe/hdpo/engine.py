"""What verl's training worker tells its engine about a batch, for the passes that the recipe makes itself."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import TrainingWorker


def assign_engine_settings(worker: TrainingWorker, batch: TensorDict, *, training: bool, **settings: Any) -> None:
    """Set packing and micro-batching of ``worker`` on a batch, as its ``train_batch`` or ``infer_batch`` would.

    Args:
        training: which of the two token budgets and micro-batch sizes count.
        settings: further scalars for the engine.
    """
    config = worker.engine_config
    size = config.micro_batch_size_per_gpu if training else config.infer_micro_batch_size_per_gpu
    tu.assign_non_tensor(
        batch,
        use_remove_padding=worker.model_config.get("use_remove_padding", False),
        use_dynamic_bsz=config.use_dynamic_bsz,
        max_token_len_per_gpu=config.max_token_len_per_gpu if training else config.infer_max_token_len_per_gpu,
        # The engine wants it to divide the number of rows.
        micro_batch_size_per_gpu=max(d for d in range(1, (size or 1) + 1) if len(batch) % d == 0),
        use_fused_kernels=False,
        **settings,
    )
