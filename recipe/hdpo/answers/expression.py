r"""Whether two expressions are equal, by math-verify and sympy. Only for the worker processes of math_process.py.

Decimals are exact rationals here, closed expressions are compared to 50 significant digits relative to their size, and
never by an absolute tolerance: 10^{-19} is not 10^{-20}.
"""

from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Basic, Eq, Expr, Float, I, Rational, Set, Symbol, oo, solve
from sympy.core.evalf import PrecisionExhausted
from sympy.core.relational import Relational

from recipe.hdpo.answers.compare import same
from recipe.hdpo.answers.text import normalise, to_latex

# Digits to which numbers are computed, and to which the coefficients of formulas are compared.
DIGITS = 50
# math-verify's default but for units: in its list of them are letters, and 4ab, 16t and \pi r^2h would lose their last.
_NORMALISED = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
)
# Of a marked answer all is LaTeX and nothing is looked for in it; of free text the last thing that can be read.
_MARKED = (
    LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0, normalization_config=_NORMALISED),
)
_FREE = (LatexExtractionConfig(boxed_match_priority=0, normalization_config=_NORMALISED), ExprExtractionConfig())
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
    """Whether what math-verify finds in free text equals the ground truth, as mathematics or as a marked answer."""
    gold, _ = _read(rf"\boxed{{{to_latex(normalise(truth))}}}", _FREE)
    found, written = _read(text, _FREE)
    return gold is not None and found is not None and (_equal(found, gold) or same_marked(written, truth))


def equal_expressions(answer: str, truth: str) -> bool:
    """Whether two texts in LaTeX or plain notation are equal as mathematics.

    Raises:
        UnreadableTruth: math-verify can't read the ground truth.
    """
    gold, _ = _read(rf"\boxed{{{to_latex(truth)}}}", _MARKED)
    if gold is None:
        raise UnreadableTruth(f"the ground truth {truth[:80]!r} can't be read as mathematics")
    found, _ = _read(rf"\boxed{{{to_latex(answer)}}}", _MARKED)
    return found is not None and _equal(found, gold)


def _read(text: str, targets: tuple[Any, ...]) -> tuple[Any, str]:
    """What is read, None if nothing can be, and how it is written."""
    # math-verify's own timeouts rely on signals; the pool has the clock.
    read = parse(text, targets, fallback_mode="first_match", extraction_mode="first_match", parsing_timeout=None)
    found = next((part for part in read if not isinstance(part, str)), None)
    return _exact(found), next((part for part in read if isinstance(part, str)), "")


def _exact(expression: Any) -> Any:
    if not hasattr(expression, "atoms"):
        return expression
    decimals = {number: Rational(str(number)) for number in expression.atoms(Float)}
    return expression.xreplace(decimals) if decimals else expression


def _with_imaginary_unit(*expressions: Any) -> tuple[Any, ...]:
    """``i`` as the imaginary unit in expressions that are compared; as the index of a sum it stays a name.

    math-verify reads one ``i`` as a complex symbol and another as a real one, and so the symbols beside it. In an
    inequality ``i`` is no imaginary unit, and math-verify's own chains of them (0 <= x < 1) can't be rebuilt.
    """
    mathematics = [expression for expression in expressions if hasattr(expression, "atoms")]
    symbols = {symbol for expression in mathematics for symbol in expression.atoms(Symbol)}
    relations = {relation for expression in mathematics for relation in expression.atoms(Relational)}
    if not any(symbol.name == "i" for symbol in symbols) or not all(isinstance(relation, Eq) for relation in relations):
        return expressions
    complex_symbols = {symbol: Symbol(symbol.name) for symbol in symbols}
    return tuple(
        expression.xreplace(complex_symbols).subs(Symbol("i"), I) if expression in mathematics else expression
        for expression in expressions
    )


def _equal(found: Any, gold: Any) -> bool:
    found, gold = _with_imaginary_unit(found, gold)
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
