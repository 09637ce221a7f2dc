"""Reading data rows: by column, in order, and the name that a row is called by in a message.

A data set may have millions of rows. So a check looks at whole columns of Arrow first, and only at those rows in Python
that are not plainly in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recipe.hdpo.algorithm.privileged_prompt import text_at

# Rows that a message names for each thing that it found.
NAMED_ROWS = 5
_BATCH = 10_000


def read_rows(frame: Any, columns: list[str], positions: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
    """Some columns of every row, or of those at some positions, in order; they are decoded in batches.

    Args:
        frame: a Hugging Face ``Dataset``.
    """
    chosen = frame.select_columns(columns)
    if positions is None:
        batches = chosen.iter(batch_size=1000)
    else:
        batches = (chosen[list(positions[start : start + 1000])] for start in range(0, len(positions), 1000))
    for batch in batches:
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def row_name(position: int, row: Mapping[str, Any]) -> str:
    """What a row can be found by: its place, and its own index where it has one."""
    index = text_at(row, "extra_info.index")
    return f"row {position}" if index is None else f"row {position} (index {index})"


def row_names(frame: Any, positions: Sequence[int]) -> str:
    """The first :data:`NAMED_ROWS` of the rows, as a message names them."""
    columns = ["extra_info"] if "extra_info" in frame.column_names else frame.column_names[:1]
    first = list(positions[:NAMED_ROWS])
    names = [row_name(i, row) for i, row in zip(first, read_rows(frame, columns, first), strict=True)]
    return ", ".join(names + ["..."] * (len(positions) > NAMED_ROWS))


def suspects(frame: Any, column: str, plain: Any) -> list[int]:
    """Positions of the rows that a column does not plainly show to be in order, by whole batches.

    Args:
        plain: takes an Arrow array of the column's values; returns a mask of those that are in order, or None where
            it knows nothing of such a type.
    """
    found, start = [], 0
    for batch in frame.select_columns([column]).with_format("arrow").iter(batch_size=_BATCH):
        values = batch.column(column).combine_chunks()
        mask = plain(values)
        known = np.zeros(len(values), bool) if mask is None else np.asarray(mask)
        found += (start + np.flatnonzero(~known)).tolist()
        start += len(values)
    return found


def shows_letters(values: pa.Array, path: str) -> np.ndarray | None:
    """Which values have a text with a visible ASCII character at a path below them, such as ``solution``, or none
    ("") for the values themselves; None where there is no column of texts.

    Most texts have one, and whether another one shows anything is for ``text_at``.
    """
    for name in filter(None, path.split(".")):
        if not pa.types.is_struct(values.type) or values.type.get_field_index(name) < 0:
            return None
        values = pc.struct_field(values, name)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return None
    return pc.fill_null(pc.match_substring_regex(values, "[!-~]"), False).to_numpy(zero_copy_only=False)


def count(found: Mapping[str, Sequence[int]], frame: Any) -> str:
    """What was found, the most frequent first: ``nothing in 2 (row 1, row 3), a list in 1 (row 7)``."""
    kinds = sorted(found.items(), key=lambda item: -len(item[1]))
    return ", ".join(f"{kind} in {len(rows)} ({row_names(frame, rows)})" for kind, rows in kinds)


def by_kind(kinds: Iterator[tuple[int, str | None]]) -> dict[str, list[int]]:
    """Positions by what was found there, without those of None."""
    found: dict[str, list[int]] = {}
    for position, kind in kinds:
        if kind is not None:
            found.setdefault(kind, []).append(position)
    return found
