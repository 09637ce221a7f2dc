"""The variants of :mod:`benchmarks.jsd` that start from hidden states and the weight of the model's head."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.fused_head import fused_head
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK


@dataclass
class Head:
    """What the head reads, (N, H), and its weight, (V, H). Both ask for a gradient."""

    hidden_NH: torch.Tensor
    weight_VH: torch.Tensor

    def clear(self) -> None:
        """Let go of the gradients."""
        self.hidden_NH.grad = self.weight_VH.grad = None


def make_head(tokens: int, vocab: int, hidden: int, dtype: torch.dtype, device: str) -> Head:
    """Random ones, whose logits have a standard deviation of 3."""
    torch.manual_seed(1)
    hidden_NH = torch.empty(tokens, hidden, dtype=dtype, device=device).normal_()
    weight_VH = torch.empty(vocab, hidden, dtype=dtype, device=device).normal_(std=3.0 / hidden**0.5)
    return Head(hidden_NH.requires_grad_(), weight_VH.requires_grad_())


def head_logits(head: Head, teacher: TeacherTopK) -> torch.Tensor:
    """The recipe's JSD_k from whole logits, (N,)."""
    logits_NV = head.hidden_NH @ head.weight_VH.t()
    rows = torch.arange(len(logits_NV), device=logits_NV.device)
    return topk_divergence(logits_NV, teacher, rows).per_token


def head_fused(head: Head, teacher: TeacherTopK) -> torch.Tensor:
    """The recipe's JSD_k from its fused head, (N,)."""
    rows = torch.arange(len(head.hidden_NH))
    labels_N = teacher.ids[:, 0].contiguous()
    found = fused_head(head.hidden_NH, head.weight_VH, labels_N, teacher=teacher, rows_M=rows).divergence
    assert found is not None
    return found.per_token
