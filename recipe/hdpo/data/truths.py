r"""Can a response ever be right? Ground truths looked at by type, and graded against themselves.

A row whose ground truth no response can reach is a cliff in every epoch, and its privileged rollouts are wasted.

The recipe's own reward needs a text or a finite number. :func:`self_grade` further asks whether ``\boxed{TRUTH}`` or
``#### TRUTH`` is right, and whether other answers can be compared with it at all. Of another reward function only
this is known: nothing, NaN and a blank text are no ground truth; a list or an object may be meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recipe.hdpo.algorithm.privileged_prompt import text_at
from recipe.hdpo.answers.compare import same_answer
from recipe.hdpo.answers.parts import split
from recipe.hdpo.answers.text import normalise
from recipe.hdpo.data.readers import by_kind, read_rows, shows_letters, suspects
from recipe.hdpo.math_process import Unscored, is_equal
from recipe.hdpo.reward import MAX_ANSWER_CHARS, as_written, grade

NOT_ITSELF = "what is not equal to itself as an answer"
UNREADABLE = "what can't be read as mathematics"
_DIGITS = re.compile(r"\d+")


def truth_fault(truth: Any, *, own_reward: bool = True) -> str | None:
    """What a ground truth is that no response can reach; None where its type says nothing against it.

    Args:
        own_reward: whether the recipe's own reward grades. Of another one less is known.
    """
    if truth is None:
        return "nothing (None)"
    if isinstance(truth, str):
        if text_at({"truth": truth}, "truth") is None:
            return "a blank text" if truth else "an empty text"
        is_long = own_reward and len(truth) > MAX_ANSWER_CHARS
        return f"a text of more than {MAX_ANSWER_CHARS} characters" if is_long else None
    if isinstance(truth, float):
        return None if math.isfinite(truth) else str(truth)
    if isinstance(truth, int) and not isinstance(truth, bool):
        return None
    return f"a {type(truth).__name__}" if own_reward else None


def truth_faults(frame: Any, column: str, path: str, *, own_reward: bool) -> dict[str, list[int]]:
    """Positions of the rows whose ground truth is unusable by its type, by kind; all rows are looked at.

    Args:
        frame: a Hugging Face ``Dataset``.
        column, path: where ground truths stand, for example ``reward_model`` and ``ground_truth``.
    """

    def plain(values: pa.Array) -> Any:
        found = shows_letters(values, path)
        if found is None:
            return None
        lengths = pc.struct_field(values, path) if path else values
        return found & pc.fill_null(pc.less_equal(pc.utf8_length(lengths), MAX_ANSWER_CHARS), False).to_numpy(
            zero_copy_only=False
        )

    positions = suspects(frame, column, plain)
    rows = read_rows(frame, [column], positions)
    return by_kind(
        (i, truth_fault(_value(row[column], path), own_reward=own_reward))
        for i, row in zip(positions, rows, strict=True)
    )


def self_grade(truth: Any) -> str | None:
    """Why the recipe's grader could give no response to this ground truth its due; None where it can.

    Starts the grader's processes where answers to the ground truth are compared as mathematics.
    """
    fault = truth_fault(truth)
    if fault is not None:
        return fault
    text = truth if isinstance(truth, str) else as_written(truth)
    try:
        if not any(grade(marked, truth) for marked in (rf"\boxed{{{text}}}", f"#### {text}")):
            return NOT_ITSELF
    except Unscored:
        return NOT_ITSELF
    return UNREADABLE if any(_is_unreadable(part) for part in _parts(text)) else None


def _is_unreadable(text: str) -> bool:
    """Whether math-verify is asked for this ground truth, by some answer, and can't read it."""
    other = next((other for other in (_DIGITS.sub(_next, text), "0") if same_answer(other, text) is None), None)
    try:
        if other is not None:
            is_equal(other, text)
    except Unscored as reason:
        # A time limit says nothing: what is written as the ground truth is right at once.
        return "can't be read" in str(reason)
    return False


def _parts(text: str) -> list[str]:
    """The members of a list, a set or a tuple; else the text."""
    brackets, parts = split(normalise(text))
    return parts if brackets or len(parts) > 1 else [text]


def sample_positions(size: int, most: int) -> list[int]:
    """At most ``most`` of ``size`` positions, evenly spaced from the first one on."""
    step = max(1, math.ceil(size / most))
    return list(range(0, size, step))


def sampled_faults(frame: Any, column: str, path: str, positions: Sequence[int]) -> dict[str, list[int]]:
    """:func:`self_grade` of the ground truths at some positions, by kind."""
    rows = read_rows(frame, [column], positions)
    return by_kind((i, self_grade(_value(row[column], path))) for i, row in zip(positions, rows, strict=True))


def _value(value: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _next(digits: re.Match[str]) -> str:
    """Another number of as many digits, so that a fraction or a list stays one."""
    return digits.group().translate(str.maketrans("0123456789", "1234567891"))
