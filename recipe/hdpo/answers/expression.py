r"""Whether two expressions are equal, by math-verify and sympy. Only for the worker processes of math_process.py.

Decimals are exact rationals here, closed expressions are compared to 50 significant digits relative to their size, and
never by an absolute tolerance: 10^{-19} is not 10^{-20}.
"""

from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Basic, Eq, Expr, Float, Rational, Set, oo, solve
from sympy.core.evalf import PrecisionExhausted

from recipe.hdpo.answers.compare import same
from recipe.hdpo.answers.text import normalise, to_latex

# Digits to which numbers are computed, and to which the coefficients of formulas are compared.
DIGITS = 50
# Of a marked answer all is LaTeX and nothing is looked for in it; of free text the last thing that can be read.
_MARKED = (LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0),)
_FREE = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
_VERIFY: dict[str, Any] = {
    "float_rounding": DIGITS,
    "numeric_precision": DIGITS,
    "allow_set_relation_comp": True,
    "timeout_seconds": None,
}


class UnreadableTruth(Exception):
    """The ground truth is no text, number or formula that can be understood: nothing can be graded with it."""


def same_marked(answer: str, truth: str) -> bool:
    """Whether a marked answer is the ground truth (answers/compare.py)."""
    return bool(same(answer, truth, equal_expressions))


def same_in_text(text: str, truth: str) -> bool:
    """Whether what math-verify finds in free text equals the ground truth."""
    gold = _read(rf"\boxed{{{to_latex(normalise(truth))}}}", _FREE)
    found = _read(text, _FREE)
    return gold is not None and found is not None and _equal(found, gold)


def equal_expressions(answer: str, truth: str) -> bool:
    """Whether two texts in LaTeX or plain notation are equal as mathematics.

    Raises:
        UnreadableTruth: math-verify can't read the ground truth.
    """
    gold = _read(rf"\boxed{{{to_latex(truth)}}}", _MARKED)
    if gold is None:
        raise UnreadableTruth(f"the ground truth {truth[:80]!r} can't be read as mathematics")
    found = _read(rf"\boxed{{{to_latex(answer)}}}", _MARKED)
    return found is not None and _equal(found, gold)


def _read(text: str, targets: tuple[Any, ...]) -> Any:
    # math-verify's own timeouts rely on signals; the pool has the clock.
    read = parse(text, targets, fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None)
    return _exact(read[0]) if read else None


def _exact(expression: Any) -> Any:
    if not hasattr(expression, "atoms"):
        return expression
    decimals = {number: Rational(str(number)) for number in expression.atoms(Float)}
    return expression.xreplace(decimals) if decimals else expression


def _equal(found: Any, gold: Any) -> bool:
    if _is_closed(found) and _is_closed(gold):
        return _equal_numbers(found, gold)
    if not verify(gold, found, **_VERIFY):
        return False
    # math-verify takes two equations without any solution for the same.
    return not (isinstance(gold, Eq) and isinstance(found, Eq)) or _is_multiple(found, gold) or bool(solve(gold))


def _is_closed(expression: Any) -> bool:
    return isinstance(expression, Expr) and not isinstance(expression, Set) and not expression.free_symbols


def _equal_numbers(found: Expr, gold: Expr) -> bool:
    found, gold = found.doit(), gold.doit()
    if not (found.is_finite and gold.is_finite):
        return found == gold and gold in (oo, -oo)
    if found == gold:
        return True
    if (found.is_Rational and gold.is_Rational) or {found.is_rational, gold.is_rational} == {True, False}:
        return False
    try:
        left, right = (side.evalf(DIGITS, strict=True) for side in (found, gold))
        return bool(abs(left - right) <= max(abs(left), abs(right)) * Rational(10) ** (5 - DIGITS))
    except (PrecisionExhausted, TypeError):
        # One of them is zero in a form that does not show it.
        return bool((found - gold).equals(0))


def _is_multiple(found: Eq, gold: Eq) -> bool:
    ratio = ((found.lhs - found.rhs) / (gold.lhs - gold.rhs)).simplify()
    return isinstance(ratio, Basic) and not ratio.free_symbols and ratio.is_zero is False
