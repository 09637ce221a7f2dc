r"""Compare an answer with the ground truth by type: plain number, text, list, set, tuple or interval, equation.

What is evaluated and what is not:

- Where the ground truth is a plain number, so must the answer be. ``3+8+5+2``, ``9+9``, ``36/2``, ``5!`` and
  ``\sum_{k=1}^{100} k`` restate a problem. Before "=" may stand a name (``x = 18``) or what is really equal
  (``3+8+5+2 = 18``, not ``17 = 18``).
- Numbers are compared exactly: no tolerance, no rounding. Units are compared, not converted, and only if both have one.
- Words are compared as text, without case, and so are dates, ranges and scores (2023-05-10, 1914-1918, 3-2). A list is
  compared with its repetitions and in any order, a set without repetitions, a tuple or an interval in order and with
  its brackets. (1,2), [1,2] and {1,2} are three things; 1,2 without brackets is a list, and of the three only equal to
  the set.
- Any other ground truth is an expression, such as ``2\sqrt{3}``. The answer may be an equal one in another form
  (``\sqrt{12}``); that is for ``Leaf`` (answers/expression.py).
"""

import re
from collections.abc import Callable
from decimal import Decimal

from recipe.hdpo.answers.number import MAX_NUMBER_CHARS, quantity, same_number
from recipe.hdpo.answers.parts import is_asked_value, is_name, members, named, split, split_signs, without_unit
from recipe.hdpo.answers.text import normalise
from recipe.hdpo.answers.units import same_unit
from recipe.hdpo.answers.words import choice, choice_and_value, same_words

# Whether (answer, ground truth), two expressions, are equal; None for "not decided here".
Leaf = Callable[[str, str], bool | None]

_MAX_PARTS = 50
# Longer lists, sets and equations are taken apart in the process with a time limit.
_MAX_HERE = 200
# Nearly all answers to sums and word problems: for these one look is enough.
_SIMPLE = re.compile(r"\s*\\?\$?([-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,400})(?:\.[0-9]{0,400})?)\.?\$?\s*")
_OTHER_RELATION = re.compile(
    r"[<>]|!=|\\(?:[lg]eq?|neq?|not|to|[a-zA-Z]*arrow|implies|iff|cancel|p?mod|pm|mp)(?![a-z])"
)
_IN_BRACES = re.compile(r"\{[^{}]*\}")
_SET_EXPRESSION = re.compile(r"\\(?:cup|cap|setminus|[lc]?dots|mid|mathbb|[lg]eq?|infty)(?![a-z])|\.\.\.|[<>]")


def same_answer(answer: str, truth: str) -> bool | None:
    """``same`` as far as the two texts decide it, in a bounded time; None where it takes mathematics."""
    left, right = _SIMPLE.fullmatch(answer), _SIMPLE.fullmatch(truth)
    if left and right:
        return Decimal(left[1].replace(",", "")) == Decimal(right[1].replace(",", ""))
    longest = max(len(answer), len(truth))
    if longest > MAX_NUMBER_CHARS:
        return True if answer.strip() == truth.strip() else None
    return same(answer, truth, _undecided) if longest <= _MAX_HERE else _same_text(*_both(answer, truth))


def _undecided(answer: str, truth: str) -> None:
    return None


def same(answer: str, truth: str, leaf: Leaf) -> bool | None:
    """Whether the answer is the ground truth; None where ``leaf`` is needed and decides nothing.

    Two empty texts are not the same: nothing is no answer, even where the ground truth is empty.
    """
    left, right = _both(answer, truth)
    verdict = _same_text(left, right)
    if verdict is not True and (choice_and_value(left) or choice_and_value(right)):
        return _same_choices(left, right, leaf)
    if verdict is not None:
        return verdict
    return _same_parts(left, right, leaf) if quantity(right) is None else _reaches_number(left, right, leaf)


def _same_choices(answer: str, truth: str, leaf: Leaf) -> bool | None:
    """A choice with its value: what stands on both sides has to be the same, the letter, the value or both."""
    own, wanted = choice_and_value(answer), choice_and_value(truth)
    letters = own[0] if own else choice(answer), wanted[0] if wanted else choice(truth)
    values = own[1] if own else answer, wanted[1] if wanted else truth
    if None in letters:
        return same(*values, leaf)
    return letters[0] == letters[1] and (not (own and wanted) or same(*values, leaf))


def _both(answer: str, truth: str) -> tuple[str, str]:
    return _before_approximation(normalise(answer)), _before_approximation(normalise(truth))


def _same_text(left: str, right: str) -> bool | None:
    """Equal texts, two plain numbers, or words; None for anything else."""
    if not left or not right:
        return False
    if left == right:
        return True
    number = quantity(right)
    if number is None:
        return same_words(left, right)
    found = quantity(left)
    return None if found is None else same_number(found, number)


def _before_approximation(text: str) -> str:
    r"""What "2\sqrt{3} \approx 3.46" approximates; "x \approx 18" stays."""
    exact, sign, rest = text.partition(r"\approx")
    if sign and not exact.strip():
        return rest.strip()
    return exact.strip() if sign and exact.strip() and not is_name(exact.strip()) else text


def _reaches_number(answer: str, truth: str, leaf: Leaf) -> bool | None:
    """An answer that is no plain number itself: "x = 18", "3+8+5+2 = 18", "{18}"."""
    brackets, parts = split(answer)
    if len(parts) != 1 or brackets not in ("", "{}") or _OTHER_RELATION.search(_IN_BRACES.sub("", answer)):
        return False
    if parts[0] != answer:
        return same(parts[0], truth, leaf)
    sides = members(answer)
    return len(sides) > 1 and _same_sides(sides, truth, leaf)


def _same_sides(sides: list[str], truth: str, leaf: Leaf) -> bool | None:
    """a = b = c: all but names must be equal to the ground truth; if that is a number, one of them as it stands."""
    values = [side for side in sides if quantity(normalise(side)) or not is_asked_value(side)]
    number = quantity(truth)
    if number is None:
        return _all([same(value, truth, leaf) for value in values or sides[-1:]])
    read = [quantity(normalise(value)) for value in values]
    if not any(found and same_number(found, number) for found in read):
        return False
    return _all(
        [
            same_number(found, number, carried_out=False) if found else leaf(value, truth)
            for value, found in zip(values, read, strict=True)
        ]
    )


def _all(verdicts: list[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True


def _same_parts(answer: str, truth: str, leaf: Leaf) -> bool | None:
    left_kind, left = split_signs(answer)
    right_kind, right = split_signs(truth)
    if left_kind == right_kind == "" and len(left) == len(right) == 1:
        return _same_expressions(left[0], right[0], leaf)
    # "x in {1, 2}" and "(x, y) = (1, 2)" name what is on the other side.
    for kind, parts, other in ((left_kind, left, False), (right_kind, right, True)):
        inside = named(parts[0]) if kind == "" and len(parts) == 1 else None
        if inside is not None:
            return same(answer, inside[1], leaf) if other else same(inside[1], truth, leaf)
    if (_is_single(left_kind, left) or _is_single(right_kind, right)) and _SET_EXPRESSION.search(answer + truth):
        return leaf(answer, truth)
    if {left_kind, right_kind} <= {"", "{}"}:
        return _same_lists(left, right, leaf, as_sets=left_kind == right_kind == "{}")
    if left_kind != right_kind:
        return leaf(answer, truth) if r"\begin" in answer + truth else False
    return len(left) == len(right) and _all([same(a, b, leaf) for a, b in zip(left, right, strict=True)])


def _is_single(kind: str, parts: list[str]) -> bool:
    return kind == "" and len(parts) == 1


def _same_lists(left: list[str], right: list[str], leaf: Leaf, as_sets: bool) -> bool | None:
    """In any order; "45, 2" in the order of the names for "k = 45, n = 2"."""
    if max(len(left), len(right)) > _MAX_PARTS or (len(left) != len(right) and not as_sets):
        return False
    pairs = [(named(part) or ("", part)) for part in left], [(named(part) or ("", part)) for part in right]
    (left_names, left), (right_names, right) = (
        [list(column) for column in zip(*side, strict=True)] or [[], []] for side in pairs
    )
    if len(right) > 1 and len(set(right_names)) == len(right):
        if any(left_names) and sorted(left_names) != sorted(right_names):
            return False
        order = [left_names.index(name) for name in right_names] if any(left_names) else range(len(right))
        return _all([same(left[at], value, leaf) for at, value in zip(order, right, strict=True)])
    table = [[same(value, other, leaf) for other in right] for value in left]
    rows = [*table, *([list(column) for column in zip(*table, strict=True)] if table else [[] for _ in right])]
    if any(not any(verdict is not False for verdict in row) for row in rows):
        return False
    if any(None in row for row in table):
        return None
    return as_sets or _are_matched(table)


def _are_matched(table: list[list[bool | None]]) -> bool:
    """Whether every row can have a column of its own; equality is transitive, so the first free one will do."""
    free = set(range(len(table)))
    for row in table:
        column = next((at for at in sorted(free) if row[at]), None)
        if column is None:
            return False
        free.remove(column)
    return True


def _same_expressions(answer: str, truth: str, leaf: Leaf) -> bool | None:
    assigned, sides = named(truth, _is_sum_of_names), members(answer)
    if assigned is not None:
        return _same_assignment(answer, assigned, leaf, truth)
    if len(sides) > 1 and len(members(truth)) == 1 and not _OTHER_RELATION.search(truth):
        return _same_sides(sides, truth, leaf)
    right, right_unit = without_unit(truth)
    left, left_unit = without_unit(answer, right)
    if left_unit or right_unit:
        return same_unit(left_unit, right_unit) and same(left, right, leaf)
    return leaf(answer, truth)


def _is_sum_of_names(text: str) -> bool:
    return is_name(text) or (is_asked_value(text) and re.search(r"\d", text) is None)


def _same_assignment(answer: str, assigned: tuple[str, str], leaf: Leaf, truth: str) -> bool | None:
    """The ground truth "x = 3" or "y = 2x+1": its value will do; another equation only for formulas."""
    name, value = assigned
    found = named(answer)
    if found is None and len(members(answer)) == 1:
        return same(answer, value, leaf)
    same_name = found is not None and found[0] == name
    verdict = same(found[1], value, leaf) if found is not None and same_name else False
    # "xy = 1" may be the curve y = 1/x; "x = 24" is no other equation.
    is_formula = quantity(normalise(value)) is None or (not same_name and len(name) > 1)
    return leaf(answer, truth) if verdict is False and is_formula else verdict
