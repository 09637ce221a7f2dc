"""The teacher of ``hdpo.teacher=mixed``: between the actor of this step and the initial model, a trust region.

    log p_mixed = (1 - weight) log p_drifting + weight log p_frozen, normalised again

Both models read each micro-batch one after the other, so both logits are there at the same time: the top-k is that of
the mixture over the whole vocabulary, and not of either teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from tensordict import TensorDict

from recipe.hdpo.algorithm.mixed_topk import mixed_topk
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.training.teacher_pass import TopKCollector


class MixedCollector(TopKCollector):
    """Keeps the top-k of the mixture, while the actor is the model that verl's engine runs.

    Args:
        frozen_engine: engine of the frozen teacher, in evaluation mode; with LoRA the actor's own.
        frozen: makes the context in which that engine computes as the frozen teacher (adapter off).
    """

    def __init__(self, hdpo: HDPOConfig, frozen_engine: Any, frozen: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__(hdpo)
        self.frozen_engine, self.frozen = frozen_engine, frozen

    def logits(self, student_logits: torch.Tensor, data: TensorDict) -> tuple[torch.Tensor, ...]:
        """The drifting and the frozen teacher's, each (N, V). Every rank runs the frozen model on every micro-batch."""
        seen: list[torch.Tensor] = []

        def keep(model_output: Any = None, data: Any = None, dp_group: Any = None, student_logits: Any = None) -> Any:
            if student_logits is None:
                return torch.zeros((), device=data["input_ids"].device), {}
            seen.append(student_logits.squeeze(0))
            return {}

        with self.frozen():
            self.frozen_engine.forward_step(data, loss_function=keep, forward_only=True)
        return student_logits.squeeze(0), seen[0]

    def top_k(self, logits: tuple[torch.Tensor, ...], rows_M: torch.Tensor, labels_M: torch.Tensor) -> TeacherTopK:
        """The mixture's, for the named rows."""
        drifting_NV, frozen_NV = logits
        options = self.hdpo
        return mixed_topk(
            drifting_NV,
            frozen_NV,
            options.topk,
            weight=options.mixed_weight,
            rows_M=rows_M,
            labels_M=labels_M,
            chunk_size=options.divergence.chunk_size,
        )
