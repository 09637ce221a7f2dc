"""The lines of ``hdpo_kept/STEP.jsonl``: kept trajectories from TransferQueue as text, with what was recorded of their
tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import transfer_queue as tq
from transfer_queue import KVBatchMeta

from recipe.hdpo import transfer
from recipe.hdpo.tracking.kept_text import kept_line
from recipe.hdpo.tracking.token_text import token_texts
from recipe.hdpo.training.token_record import TOPS, WIDTH

# Of a line: what was recorded of its tokens.
TOKENS = "hdpo_tokens"


def text_lines(
    tokenizer: Any,
    kept: KVBatchMeta,
    recorded: Collection[str] = (),
    note: Callable[[str], Mapping[str, Any]] = lambda key: {},
) -> list[dict[str, Any]]:
    """One line each, joined by key.

    Args:
        recorded: keys of those that have a record.
        note: what more is said of a trajectory, by its key.
    """
    columns = _fetch(kept.keys, kept.partition_id, transfer.FIELDS)
    found = dict(zip(recorded, _fetch([*recorded], kept.partition_id, [transfer.TOKEN_RECORD]), strict=True))
    lines = []
    for key, tag, (*texts, mask) in zip(kept.keys, kept.tags, columns, strict=True):
        named = dict(zip(transfer.TEXTS, texts, strict=True))
        shown = {"key": key, transfer.SOURCE: tag.get(transfer.SOURCE)}
        line = {**shown, **kept_line(tokenizer.decode, named, mask), **note(key)}
        if key in found:
            line[TOKENS] = told_tokens(tokenizer, named[transfer.RESPONSE].tolist(), mask.tolist(), found[key][0])
        lines.append(line)
    return lines


def _fetch(keys: list[str], partition: str, fields: list[str]) -> list[tuple[torch.Tensor, ...]]:
    if not keys:
        return []
    data = tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=fields)
    return list(zip(*(data[name].unbind() for name in fields), strict=True))


def told_tokens(tokenizer: Any, response: list[int], mask: list[int], record: torch.Tensor) -> dict[str, Any]:
    """What was recorded of a trajectory's tokens, ready for JSON and for people to read.

    Returns:
        ``ids`` and ``texts`` of all response tokens; ``at``: which of them are distilled, and of each of these
        ``divergence`` in nats, ``student_mass`` and ``teacher_mass`` on the teacher's top-k, ``student``: q(y_t), and
        ``teacher_top`` and ``student_top``: lists of [id, p, q], most likely first, the student's within the teacher's
        top-k; ``names``: the texts of all ids in these lists.
    """
    table = record.unflatten(0, (-1, WIDTH))
    tops = table[:, 4:].unflatten(1, (2, TOPS, 3))
    lists = [[_tops(row[side]) for row in tops] for side in (0, 1)]
    ids = sorted({top[0] for side in lists for row in side for top in row})
    return {
        "ids": response,
        "texts": token_texts(response, tokenizer.decode),
        "at": [i for i, is_own in enumerate(mask) if is_own],
        "divergence": _rounded(table[:, 0]),
        "student_mass": _rounded(table[:, 1]),
        "teacher_mass": _rounded(table[:, 2]),
        "student": _rounded(table[:, 3].exp()),
        "teacher_top": lists[0],
        "student_top": lists[1],
        "names": {str(i): tokenizer.decode([i]) for i in ids},
    }


def _rounded(values: torch.Tensor) -> list[float]:
    """Six significant digits: sums over thousands of tokens stay exact to five."""
    return [float(f"{value:.6g}") for value in values.tolist()]


def _tops(row: torch.Tensor) -> list[tuple[int, float, float]]:
    found = [(id_, p, q) for id_, p, q in row.tolist() if id_ == id_]
    return [(int(id_), *(round(x, 4) for x in torch.tensor([p, q]).exp().tolist())) for id_, p, q in found]
