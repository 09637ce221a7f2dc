"""Where do the texts stand that privileged prompts show, and where might they stand instead?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recipe.hdpo.algorithm.privileged_prompt import text_at, why_no_text
from recipe.hdpo.algorithm.solution_prefix import solution_prefix
from recipe.hdpo.data.readers import by_kind, read_rows, shows_letters, suspects

# What verl's own preparations, the hub's data sets and users' files call a worked solution or a final answer.
SOLUTION_NAMES: tuple[str, ...] = ("solution", "answer", "rationale", "reasoning", "explanation", "cot", "answer_cot")
SOLUTION_NAMES += ("response", "generated_solution", "r1_solution_1", "reference_solution", "output", "completion")
ANSWER_NAMES = ("ground_truth", "answer", "final_answer", "expected_answer", "target", "label", "solution")
_OBJECTS = ("extra_info", "", "reward_model")
# Rows of which the candidates are read.
_LOOKED_AT = 1000


def rows_without(frame: Any, key: str, *, join: bool) -> dict[str, list[int]]:
    """Positions of the rows without a text at a dotted key, by what stands there.

    Args:
        frame: a Hugging Face ``Dataset``.
        join: whether a list of texts is one text.
    """
    column, _, path = key.partition(".")
    if column not in frame.column_names:
        return {"nothing": list(range(len(frame)))} if len(frame) else {}
    positions = suspects(frame, column, lambda values: shows_letters(values, path))
    rows = read_rows(frame, [column], positions)
    return by_kind(
        (i, None if text_at(row, key, join=join) is not None else why_no_text(row, key))
        for i, row in zip(positions, rows, strict=True)
    )


def without_prefix(frame: Any, key: str, share: float, positions: Sequence[int], *, join: bool) -> list[int]:
    """Those of some positions at which a text stands that has no first part, since it is of one piece.

    Args:
        frame: a Hugging Face ``Dataset``.
        share: see :func:`~recipe.hdpo.algorithm.solution_prefix.solution_prefix`.
        join: whether a list of texts is one text.
    """
    column = key.partition(".")[0]
    texts = (text_at(row, key, join=join) for row in read_rows(frame, [column], positions))
    found = zip(positions, texts, strict=True)
    return [i for i, text in found if text is not None and solution_prefix(text, share) is None]


def other_places(frame: Any, key: str, truth_key: str, *, worked: bool, join: bool) -> list[tuple[str, int, int]]:
    """(dotted key, rows with a text, rows looked at) of the places that hold texts of the wanted kind, the best first.

    Args:
        key: the place where there was none.
        truth_key: where the final answer stands; a text that says no more than it is no worked solution.
        worked: whether a worked solution is looked for; else a final answer is.
    """
    size = min(len(frame), _LOOKED_AT)
    rows = list(read_rows(frame, list(frame.column_names), range(size)))
    names = SOLUTION_NAMES if worked else ANSWER_NAMES
    candidates = [".".join(filter(None, (where, name))) for where in _OBJECTS for name in names]
    found = []
    for candidate in candidates:
        if candidate == key or (worked and candidate == truth_key):
            continue
        texts = [text_at(row, candidate, join=join) for row in rows]
        shown = [(text, row) for text, row in zip(texts, rows, strict=True) if text is not None]
        if worked and not any(_says_more(text, text_at(row, truth_key)) for text, row in shown):
            continue
        if shown:
            found.append((candidate, len(shown), size))
    return sorted(found, key=lambda place: -place[1])


def advice(places: Sequence[tuple[str, int, int]], knob: str, size: int, *, worked: bool) -> str:
    """What to set, in words; the last resort is ``+control=answer_only``.

    Args:
        size: rows of the data set, of which the first ones were looked at.
    """
    if places:
        key, texts, rows = places[0]
        of = f"the first {rows}" if rows < size else rows
        others = "".join(f"; {other} has text in {n} of {of}" for other, n, _ in places[1:3])
        return f"{key} has text in {texts} of {of} rows: set hdpo.privileged.{knob}={key}{others}"
    if worked:
        return (
            "no column holds a worked solution; where final answers are all there is, add +control=answer_only, which "
            "shows those"
        )
    return f"no column holds a final answer; name the place by hdpo.privileged.{knob}"


def _says_more(text: str, truth: str | None) -> bool:
    return truth is None or "".join(text.split()) != "".join(truth.split())
