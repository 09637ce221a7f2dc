"""Reading data rows: by column, in order, and the name that a row is called by in a message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recipe.hdpo.algorithm.privileged_prompt import text_at


def read_rows(frame: Any, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Some columns of every row, in order; a data set may have millions of rows, so they are decoded in batches.

    Args:
        frame: a Hugging Face ``Dataset``.
    """
    for batch in frame.select_columns(columns).iter(batch_size=1000):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def row_name(position: int, row: Mapping[str, Any]) -> str:
    """What a row can be found by: its own index where it has one. verl joins files and filters long prompts before."""
    index = text_at(row, "extra_info.index")
    return f"row {position} (as filtered)" if index is None else f"index {index}"
