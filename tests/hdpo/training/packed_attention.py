"""verl's Ulysses attention on a CPU: transformers' way to flash attention, and verl's patch of it with its all-to-all.

Only the kernel at the end is another one, sdpa over packed sequences, since flash-attn has none for CPUs.
"""

from __future__ import annotations

from typing import Any

import torch

NAME = "packed_sdpa"


def _kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    query_length: int,
    *args: Any,
    position_ids: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Shapes (1, tokens, heads, head size); a sequence begins wherever a position is 0."""
    assert attention_mask is None and position_ids is not None and len(position_ids) == 1
    sequence = (position_ids[0] == 0).cumsum(0)
    mask = (sequence[:, None] == sequence[None, :]).tril()
    heads_first = (x.transpose(1, 2) for x in (query, key, value))
    found = torch.nn.functional.scaled_dot_product_attention(*heads_first, mask, scale=softmax_scale, enable_gqa=True)
    return found.transpose(1, 2).contiguous()


def register() -> None:
    """Make :data:`NAME` a choice of ``attn_implementation`` in this process."""
    from transformers import AttentionInterface
    from transformers.integrations.flash_attention import flash_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask
    from verl.models.transformers import monkey_patch

    AttentionInterface.register(NAME, flash_attention_forward)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    monkey_patch._flash_attention_forward = _kernel
