"""The value of an expression of numbers, in exact fractions. No text is run as code."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def value_of(tokens: Sequence[str]) -> Fraction:
    """The value of sums, products and parentheses.

    Args:
        tokens: numbers, which may have commas, a point and a percent sign, and ``+ - * / ( )``.

    Raises:
        ValueError: they are no expression.
        ZeroDivisionError: it divides by 0.
    """
    return _Parser(tokens).whole()


class _Parser:
    def __init__(self, tokens: Sequence[str]) -> None:
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
