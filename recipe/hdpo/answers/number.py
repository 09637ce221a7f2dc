r"""Plain numbers with their unit, read from text and compared exactly.

A plain number is written out: 18, 1,000.5, 3/4, 3:4, 1 1/2, \frac{3}{4}, 3\times10^{-7}, 3e-7, 0.\overline{3}, 110_2,
with a sign, a percent sign or a unit. Sums, products, powers and functions are none: nothing is carried out here.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from recipe.hdpo.answers.text import TEXT
from recipe.hdpo.answers.units import same_unit, unit_of

# A longer text is not read as a number. Python itself reads no whole number of more than 4,300 digits.
MAX_NUMBER_CHARS = 10_000
_MAX_RATIO_CHARS = 1000
_MIN_POWER = 5

_DIGITS = r"(?:\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?![\d,])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_IN_BRACES = r"(?:\{ ?(-? ?\d+(?:\.\d+)?) ?\}|(\d))"
_FRAC = rf"\\frac ?{_IN_BRACES} ?{_IN_BRACES}"
_TEN_TO = r"10 ?(?:\^|\*\*) ?(?:\{ ?([-+]?\d{1,6}) ?\}|\(([-+]?\d{1,6})\)|([-+]?\d{1,6}))"
_SIGN = re.compile(r"[-+]? ?")
_BASE = re.compile(r"\(?([0-9][0-9A-Za-z,]*)\)? ?_ ?\{? ?(?:(\d+)|([a-z]+)) ?\}?", re.ASCII)
_BASE_NAMES = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_BASES = _BASE_NAMES.split()
_MIXED = re.compile(rf"(\d+) ?{_FRAC}|(\d+) (\d+) ?/ ?(\d+)(?![\d.])", re.ASCII)
_DIVISION = re.compile(rf"{_FRAC}|({_DIGITS}) ?[/:] ?(-?{_DIGITS})", re.ASCII)
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline ?\{(\d+)\}", re.ASCII)
_SCIENTIFIC = re.compile(
    rf"({_DIGITS})(?: ?(?:\\times|\\cdot|[*x]) ?{_TEN_TO}|[eE]([-+]?\d{{1,6}})(?![\w.]))|{_TEN_TO}(?![\d.])", re.ASCII
)
# 12:30 may be a time: as such it is not 2:05, though both ratios are 0.4.
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?!\d)", re.ASCII)
_TIME = re.compile(r"(1[0-2]|0?[1-9])(?: ?: ?([0-5]\d))? ?([ap])\.? ?m\.?", re.ASCII | re.IGNORECASE)
_DECIMAL = re.compile(_DIGITS, re.ASCII)
_PERCENT = re.compile(
    r" ?(?:\\(?:text|mathrm) ?\{ ?)?(?:%|per ?cent(?:age)?(?: points?)?\b|pct\b)(?: ?\})?", re.IGNORECASE
)


@dataclass(frozen=True)
class Quantity:
    """A plain number: exact value (digits, in another base than ten), 1/100 of it if it is a percentage, unit."""

    value: Decimal | Fraction | str
    hundredth: Decimal | Fraction | None = None
    base: int = 10
    unit: tuple[str, ...] = ()
    is_division: bool = False
    # A time: of 24 hours and, where a.m. or p.m. is said, as it is said without that.
    clock: str = ""
    said: str = ""


def quantity(text: str) -> Quantity | None:
    """The plain number that a normalised text is; None where it is something else."""
    if len(text) > MAX_NUMBER_CHARS or not any(char in text for char in "0123456789"):
        return None
    text = TEXT.sub(r"\1", text) if TEXT.match(text) or "_" in text else text
    time = _TIME.fullmatch(" ".join(TEXT.sub(r" \1", text).split()))
    if time:
        return _time(*time.groups())
    based = _BASE.fullmatch(text)
    if based:
        return _in_base(*based.groups())
    if text.startswith("(") and text.endswith(")") and "(" not in text[1:]:
        text = text[1:-1].strip()
    sign = _SIGN.match(text)
    assert sign is not None
    number = _unsigned(text, sign.end())
    if number is None:
        return None
    value, end, is_division = number
    percent = _PERCENT.match(text, end)
    unit = unit_of(text[percent.end() if percent else end :])
    if unit is None:
        return None
    negative = sign.group().startswith("-")
    hundredth = _scaled(value, negative, -2) if percent else None
    clock = _CLOCK.match(text)
    hour = f"{int(clock[1])}:{clock[2]}" if clock else ""
    return Quantity(_scaled(value, negative, 0), hundredth, 10, unit, is_division, hour)


def same_number(answer: Quantity, truth: Quantity, carried_out: bool = True) -> bool:
    """Whether two plain numbers are equal: exactly, in the same base, with no other unit; 28 % is 28 and also 0.28.

    Where the ground truth is a whole number, a fraction is a division that is still to be carried out: not the same,
    unless ``carried_out`` is false.
    """
    if answer.base != truth.base or not same_unit(answer.unit, truth.unit):
        return False
    if answer.clock and truth.clock:
        # A ground truth without a.m. or p.m. is either.
        return truth.clock == answer.clock or (truth.clock == answer.said and not truth.said)
    if answer.said or truth.said:
        return False
    if carried_out and answer.is_division and not truth.is_division and _is_whole(answer.value):
        return False
    if (answer.hundredth is None) == (truth.hundredth is None):
        return answer.value == truth.value
    share, number = (truth, answer) if answer.hundredth is None else (answer, truth)
    return number.value in (share.value, share.hundredth)


def _is_whole(value: Decimal | Fraction | str) -> bool:
    return isinstance(value, Fraction) and value.denominator == 1


def _time(hour: str, minutes: str | None, half: str) -> Quantity:
    minutes = minutes or "00"
    clock = f"{int(hour) % 12 + 12 * (half in 'pP')}:{minutes}"
    return Quantity(clock, clock=clock, said=f"{int(hour)}:{minutes}")


def _in_base(digits: str, number: str | None, word: str | None) -> Quantity | None:
    digits = digits.replace(",", "")
    base = int(number[:3]) if number else _BASES.index(word) + 2 if word in _BASES else 0
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in digits):
        return None
    return Quantity(digits.lstrip("0").upper() or "0", base=base)


_Value = Fraction | tuple[str, int]


def _unsigned(text: str, start: int) -> tuple[_Value, int, bool] | None:
    """(value, where the number ends, whether it is a division) of a number without a sign; None without one."""
    for pattern in (_MIXED, _DIVISION, _REPEATING, _SCIENTIFIC, _DECIMAL):
        match = pattern.match(text, start)
        if match is None:
            continue
        groups = [group.replace(" ", "").replace(",", "") for group in match.groups() if group is not None]
        if pattern is _DECIMAL:
            return (match.group().replace(" ", "").replace(",", ""), 0), match.end(), False
        if pattern is _SCIENTIFIC:
            # 10^2 is a power to be carried out, 10^{-7} is how one writes such a number.
            if len(groups) == 1 and abs(int(groups[0])) < _MIN_POWER:
                return None
            return (groups[0] if len(groups) == 2 else "1", int(groups[-1])), match.end(), False
        value = None if len(match.group()) > _MAX_RATIO_CHARS else _fraction(pattern, groups)
        return None if value is None else (value, match.end(), pattern is _DIVISION)
    return None


def _fraction(pattern: re.Pattern[str], groups: list[str]) -> Fraction | None:
    if pattern is _REPEATING:
        whole, fixed, period = groups
        shift = 10 ** len(fixed)
        return Fraction(int(whole + fixed or "0"), shift) + Fraction(int(period), (10 ** len(period) - 1) * shift)
    below = Fraction(groups[-1])
    if below == 0:
        return None
    return Fraction(groups[-2]) / below + (int(groups[0]) if pattern is _MIXED else 0)


def _scaled(value: _Value, negative: bool, power: int) -> Decimal | Fraction:
    """The value times 10**power, with its sign; the number of digits has no limit."""
    if isinstance(value, Fraction):
        return (-value if negative else value) * Fraction(10) ** power
    digits, exponent = value
    return Decimal(f"{'-' * negative}{digits}e{exponent + power}")
