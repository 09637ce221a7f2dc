"""Steps of arithmetic in a text: ``a op b = c``, read and computed in exact fractions. No text is run as code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from recipe.hdpo.algorithm.fractions_of import value_of

# Longer ones are judged by their beginning, so that a check takes milliseconds.
MAX_CHARS, MAX_LINE_CHARS = 200_000, 2_000
_MAX_DIGITS, _MAX_TOKENS = 30, 60

_SPELLINGS = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])|[\u00d7\u00b7\u22c5\u2217]"), "*"),
    (re.compile(r"(?:\\div(?![A-Za-z])|\u00f7)\s*(\d+)/(\d+)(?![\w/.])"), r"/(\1/\2)"),
    (re.compile(r"\\div(?![A-Za-z])|\u00f7"), "/"),
    (re.compile(r"[\u2212\u2013]"), "-"),
    (re.compile(r"(?<=\d)\{,\}(?=\d{3})"), ","),
    # Units.
    (re.compile(r"\\(?:text|mathrm)\s*\{[^{}]*\}|\^\{?\\circ\}?|\u00b0"), " "),
    (
        re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[,;!()\[\]]|[$\u20ac\u00a3]|\\%"),
        lambda m: "%" if m[0] == r"\%" else "",
    ),
    (re.compile(r"(?<=[\d)\s])[xX](?=[\s\d(])"), "*"),
    (re.compile(r"==+"), "="),
    # 2 1/2
    (
        re.compile(r"(?<![\w.,^*/)])(\d+)[ ~](\d+)/(\d+)(?![\w/.])"),
        lambda m: f"({m[1]}+{m[2]}/{m[3]})" if int(m[2][:_MAX_DIGITS]) < int(m[3][:_MAX_DIGITS]) else m[0],
    ),
)
_BULLET = re.compile(r"^\s*(?:[-*•]\s+|\d+[.)]\s+)+")
# Of "16 eggs - 3 eggs = 13 eggs" the words.
_UNIT = re.compile(r"(?<=\d)\s+([A-Za-z]+)(?:\s+[A-Za-z]+)?\s*(?=[-+*/=]|$)")
# Of these two may be converted into each other, and one of the last ones is a number.
_LENGTHS = ("mm", "cm", "m", "km", "meter", "metre", "inch", "foot", "feet", "yard", "mile")
_TIMES = ("second", "sec", "minute", "min", "hour", "hr", "day", "week", "month", "year")
_AMOUNTS = ("mg", "g", "gram", "kg", "kilogram", "ounce", "pound", "ml", "l", "liter", "litre", "cent", "dollar")
_MEASURES = frozenset((*_LENGTHS, *_TIMES, *_AMOUNTS))
_MAGNITUDES = frozenset(("dozen", "hundred", "thousand", "million", "billion", "trillion", "percent"))
# Behind a quotient, or a number that is equal to another one but for multiples.
_REMAINDERS = frozenset(("R", "r", "rem", "remainder", "mod", "modulo"))
_NAME = re.compile(r"[A-Za-z]\s*$|[A-Za-z]\s+\d+\s*$")
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_PLAIN = re.compile(rf"(?:{_NUMBER})(?:\s?%)?")
# A number is a whole word: "60km" and "2.5kg" are words of their own, and hold no 6 and no 2.
_TOKEN = re.compile(rf"(?<![\w.])(?:{_NUMBER})(?!\w|[.,]\d)(?:\s?%)?|[-+*/()]|\s+|[\w.]+(?:,\d[\w.]*)*|.", re.DOTALL)
# What may touch the begin of an expression; behind "x^" or "f" stands a part of one.
_OPENS = frozenset(":;,<>[{|\"'=.")
# And its end: "2\\sqrt{3}" and "3!" begin with no number.
_GOES_ON = frozenset("^\\!")
_LIST = re.compile(r"\d\s*[,;]\s+[-(\d]")
_EQUALS = re.compile(r"(?<![<>!=])=(?![>=])")


class Step(NamedTuple):
    """A step of a text.

    Attributes:
        is_right: whether both sides are the same.
        result: of its right side.
    """

    is_right: bool
    result: Fraction


def steps_of(text: str) -> list[Step]:
    """The steps of a text, in their order. What a step is: :func:`recipe.hdpo.step_check.arithmetic`."""
    return [step for line in text[:MAX_CHARS].splitlines() for step in _steps_of_line(line[:MAX_LINE_CHARS])]


def is_number(text: str) -> bool:
    """Whether a text begins with a number or an expression of numbers, and is no list of them."""
    return not _LIST.search(text) and _Side.beginning(_respelled(text)) is not None


def is_result(text: str, results: list[Fraction]) -> bool:
    """Whether the number that a text begins with is one of the results, or the rounded decimal of one."""
    side = _Side.beginning(_respelled(text))
    return side is not None and any(side.is_value(result) for result in results)


def _respelled(line: str) -> str:
    for pattern, spelling in _SPELLINGS:
        line = pattern.sub(spelling, line)  # type: ignore[arg-type]
    return line


def _steps_of_line(line: str) -> Iterator[Step]:
    parts = _EQUALS.split(_BULLET.sub("", _respelled(line)))
    for before, after in itertools.pairwise(parts):
        left, right = _Side.ending(_UNIT.sub("", before)), _Side.beginning(_UNIT.sub("", after))
        # Of "4 pens = 4 * 2", "day 2 = 3 + 4" and "5 and x = 5 - 1" the number is part of a name.
        is_name = left is not None and not left.operators and _NAME.search(before) is not None
        if left is not None and right is not None and not is_name and (left.operators or right.operators):
            is_right = left.equals(right)
            if is_right or not _converts(f"{before}={after}"):
                yield Step(is_right, right.value)


def _converts(equation: str) -> bool:
    """Whether an equation may be right by its units: "1 hour - 15 minutes = 45 minutes", "2 million / 4 = 500,000"."""
    words = {word.lower() for word in _UNIT.findall(equation)}
    words |= {word.removesuffix("s") for word in words}
    return len(words & _MEASURES) > 1 or bool(words & _MAGNITUDES)


class _Side:
    """One side of an equals sign: its value, and how it is written."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.operators = len([t for t in tokens[1:] if t in "+-*/"])
        self.value = value_of(tokens)

    @classmethod
    def ending(cls, text: str) -> _Side | None:
        """The expression that a text ends with."""
        tokens = _TOKEN.findall(text)
        begin = len(tokens)
        while begin > 0 and _is_arithmetic(tokens[begin - 1]):
            begin -= 1
        touches = 0 < begin < len(tokens) and not tokens[begin].isspace() and tokens[begin - 1] not in _OPENS
        if touches or (begin > 0 and tokens[begin - 1] == "mod") or _is_time(tokens[max(0, begin - 2) : begin + 1]):
            return None
        run = [t for t in tokens[begin:] if not t.isspace()]
        # "x - 3 + 4" is no arithmetic, and "so far -3 + 4" is taken for the same.
        # "= 8 8 + 4": the second number begins another expression.
        run = run[max(_meetings(run), default=0) :]
        return None if begin > 0 and run and run[0] in "+*/-" else cls._of(run)

    @classmethod
    def beginning(cls, text: str) -> _Side | None:
        """The expression that a text begins with."""
        tokens = _TOKEN.findall(text)
        end = next((i for i, token in enumerate(tokens) if not _is_arithmetic(token)), len(tokens))
        if 0 < end < len(tokens) and not tokens[end - 1].isspace() and tokens[end] in _GOES_ON:
            return None
        behind = [token for token in tokens[end : end + 2] if token != "\\"]
        if not _REMAINDERS.isdisjoint(behind[:1]) or behind[:1] == ["pmod"] or _is_time(tokens[end - 1 : end + 2]):
            return None
        run = [t for t in tokens[:end] if not t.isspace()]
        return cls._of(run[: min(_meetings(run), default=len(run))])

    @classmethod
    def _of(cls, tokens: list[str]) -> _Side | None:
        if not tokens or len(tokens) > _MAX_TOKENS or any(len(token) > _MAX_DIGITS for token in tokens):
            return None
        try:
            return cls(tokens)
        except (ValueError, ZeroDivisionError):
            return None

    def equals(self, other: _Side) -> bool:
        """Whether both are the same, or one is the other's rounded decimal; percentages may be meant as numbers."""
        pairs = itertools.product(self._readings(), other._readings())
        return any(abs(a - b) <= max(unit, other_unit) for (a, unit), (b, other_unit) in pairs)

    def is_value(self, value: Fraction) -> bool:
        """Whether this is a value, or its rounded decimal; a percentage may be meant as a number."""
        return any(abs(own - value) <= unit for own, unit in self._readings())

    def _readings(self) -> list[tuple[Fraction, Fraction]]:
        """What this may stand for, and by how much that may be off; a percentage may be meant as a number."""
        unit = self._rounding()
        if "%" not in self.tokens[-1]:
            return [(self.value, unit)]
        return [(self.value, unit / 100), (self.value * 100, unit)]

    def _rounding(self) -> Fraction:
        """By how much a lone decimal may be off; 0 for anything else."""
        number = self.tokens[self.tokens[0] == "-" :]
        decimals = len(number[-1].rstrip(" %").partition(".")[2]) if len(number) == 1 else 0
        return Fraction(1, 2 * 10**decimals) if decimals else Fraction(0)


def _is_time(tokens: list[str]) -> bool:
    """Whether these are a number, a colon and a number: of "9:00 + 2" neither is a side by itself."""
    return len(tokens) == 3 and tokens[1] == ":" and tokens[0][-1:].isdigit() and tokens[2][:1].isdigit()


def _meetings(run: list[str]) -> list[int]:
    """Where a number follows a number."""
    return [i for i in range(1, len(run)) if not {run[i - 1], run[i]} & set("+-*/()")]


def _is_arithmetic(token: str) -> bool:
    return token.isspace() or token in "+-*/()" or _PLAIN.fullmatch(token) is not None
