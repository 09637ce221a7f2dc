"""How many of a response's steps are valid: the check of arithmetic lines, and how a check of the user's is loaded.

A check (``hdpo.privileged.step_check``) is a function of a response's text. It returns the share of its valid steps, in
[0, 1], or None where the text has no step that it can judge.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

KEY = "hdpo.privileged.step_check"
StepCheck = Callable[[str], float | None]

# Longer ones are judged by their beginning, so that a check takes milliseconds.
MAX_CHARS, MAX_LINE_CHARS = 200_000, 2_000
_MAX_DIGITS, _MAX_TOKENS = 30, 60

_SPELLINGS = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])|[\u00d7\u00b7\u22c5\u2217]"), "*"),
    (re.compile(r"\\div(?![A-Za-z])|\u00f7"), "/"),
    (re.compile(r"[\u2212\u2013]"), "-"),
    (
        re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[,;!()\[\]]|[$\u20ac\u00a3]|\\%"),
        lambda m: "%" if m[0] == r"\%" else "",
    ),
    (re.compile(r"(?<=[\d)\s])[xX](?=[\s\d(])"), "*"),
    (re.compile(r"==+"), "="),
)
_BULLET = re.compile(r"^\s*(?:[-*•]\s+|\d+[.)]\s+)+")
# Of "16 eggs - 3 eggs = 13 eggs" the words.
_UNIT = re.compile(r"(?<=\d)\s+(?:[A-Za-z]+\s*){1,2}(?=[-+*/=])")
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(rf"(?<![\w.])(?:{_NUMBER})(?![A-Za-z_])(?:\s?%)?|[-+*/()]|\s+|.", re.DOTALL)
_EQUALS = re.compile(r"(?<![<>!=])=(?![>=])")


def arithmetic(text: str) -> float | None:
    """The share of a text's arithmetic steps that are right.

    A step is ``a op b = c``, with any number of ``+ - * /`` and parentheses on either side of the sign, and on at least
    one. Numbers are integers, decimals, fractions and percentages. In a chain ``a = b = c`` every sign is a step, so
    ``2 + 3 = 5 + 4 = 9`` has a false one. A lone decimal may be rounded: ``10 / 3 = 3.33`` is right. What has letters
    in it is no step. Computed in exact fractions; no text is run as code.
    """
    found = [step for line in text[:MAX_CHARS].splitlines() for step in _steps_of_line(line[:MAX_LINE_CHARS])]
    return sum(found) / len(found) if found else None


def load_step_check(spec: str) -> StepCheck:
    """The function that ``package.module.function`` or ``FILE.py:FUNCTION`` names.

    Raises:
        ValueError: there is none, or it cannot be imported.
    """
    where, _, name = spec.rpartition(":" if ".py:" in spec else ".")
    try:
        module = _module_of_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        function = getattr(module, name)
    except Exception as error:  # whatever the user's module raises
        raise ValueError(
            f"{KEY}={spec} cannot be imported: {type(error).__name__}: {error}: name a function as "
            "package.module.function or FILE.py:FUNCTION"
        ) from error
    if not callable(function):
        raise ValueError(f"{KEY}={spec} is a {type(function).__name__}, not a function")
    return function


def share_of(check: StepCheck, text: str) -> float | None:
    """What a check says of a text.

    Raises:
        ValueError: what it returned is neither None nor a number in [0, 1].
    """
    share = check(text)
    if share is None:
        return None
    if isinstance(share, bool | str) or not math.isfinite(float(share)) or not 0.0 <= float(share) <= 1.0:
        raise ValueError(f"the step check returned {share!r:.100}; it has to be a share in [0, 1], or None")
    return float(share)


def _module_of_file(path: Path) -> ModuleType:
    name = f"_hdpo_step_check_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def _steps_of_line(line: str) -> Iterator[bool]:
    """Whether each step of a line is right."""
    for pattern, spelling in _SPELLINGS:
        line = pattern.sub(spelling, line)  # type: ignore[arg-type]
    parts = _EQUALS.split(_UNIT.sub("", _BULLET.sub("", line)))
    for before, after in itertools.pairwise(parts):
        left, right = _Side.ending(before), _Side.beginning(after)
        if left is not None and right is not None and (left.operators or right.operators):
            yield left.equals(right)


class _Side:
    """One side of an equals sign: its value, and how it is written."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.operators = len([t for t in tokens[1:] if t in "+-*/"])
        self.value = _Parser(tokens).whole()

    @classmethod
    def ending(cls, text: str) -> _Side | None:
        """The expression that a text ends with."""
        tokens = _TOKEN.findall(text)
        begin = len(tokens)
        while begin > 0 and _is_arithmetic(tokens[begin - 1]):
            begin -= 1
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
        values = {self.value} | ({self.value * 100} if "%" in self.tokens[-1] else set())
        others = {other.value} | ({other.value * 100} if "%" in other.tokens[-1] else set())
        unit = max(self._rounding(), other._rounding())
        return any(abs(a - b) <= unit for a in values for b in others)

    def _rounding(self) -> Fraction:
        """By how much a lone decimal may be off; 0 for anything else."""
        decimals = len(self.tokens[-1].rstrip(" %").partition(".")[2]) if len(self.tokens) == 1 else 0
        return Fraction(1, 2 * 10**decimals) if decimals else Fraction(0)


def _meetings(run: list[str]) -> list[int]:
    """Where a number follows a number."""
    return [i for i in range(1, len(run)) if not {run[i - 1], run[i]} & set("+-*/()")]


def _is_arithmetic(token: str) -> bool:
    return token.isspace() or token in "+-*/()" or token[0].isdigit() or (token[0] == "." and len(token) > 1)


class _Parser:
    """Sums, products and parentheses, in exact fractions."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def whole(self) -> Fraction:
        value = self._sum()
        if self.at < len(self.tokens):
            raise ValueError("more than an expression")
        return value

    def _sum(self) -> Fraction:
        value = self._product()
        while self._next() in ("+", "-"):
            sign = self._take()
            value = value + self._product() if sign == "+" else value - self._product()
        return value

    def _product(self) -> Fraction:
        value = self._atom()
        while self._next() in ("*", "/"):
            value = value * self._atom() if self._take() == "*" else value / self._atom()
        return value

    def _atom(self) -> Fraction:
        token = self._take()
        if token == "(":
            value = self._sum()
            if self._take() != ")":
                raise ValueError("a parenthesis that is not closed")
            return value
        # Of a number alone, at the begin of an expression.
        if token == "-" and (self.at == 1 or self.tokens[self.at - 2] == "("):
            return -self._atom()
        if not token or not (token[0].isdigit() or token[0] == "."):
            raise ValueError(f"{token!r} is no number")
        number = Fraction(token.rstrip(" %").replace(",", ""))
        return number / 100 if token.endswith("%") else number

    def _next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self) -> str:
        token = self._next()
        self.at += 1
        return token
