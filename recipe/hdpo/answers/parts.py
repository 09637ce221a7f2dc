"""Take an answer apart: brackets, parts between commas, sides of an equation, a name or a unit beside a value."""

import re
from collections.abc import Callable

from recipe.hdpo.answers.text import GREEK, MATH_NAMES, TEXT
from recipe.hdpo.answers.units import is_known_unit, unit_of

_CLOSING = {"(": ")", "[": "]", r"\{": r"\}", r"\langle": r"\rangle"}
_HALF_OPEN = {("(", "]"), ("[", ")")}
_KIND = {r"\{": "{", r"\}": "}", r"\langle": "<", r"\rangle": ">"}
_BRACKET = r"(?P<open>\\\{|\\langle|[(\[{])|(?P<close>\\\}|\\rangle|[)\]}])"
_COMMA = re.compile(
    _BRACKET
    + r"|(?P<separator>\\text ?\{ ?,? ?(?:and|or) ?\}|, ?(?:and|or)\b|[,;]|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))"
)
_EQUALS = re.compile(_BRACKET + r"|(?P<separator>(?<![<>!:=])={1,2}(?![=>])|\\(?:equiv|in|approx)(?![a-z]))")
_EMPTY = re.compile(r"\\(?:emptyset|varnothing)|\{\}")
_NAME = re.compile(
    r"(?:[A-Za-z]+|\\[A-Za-z]+)'*(?: ?_ ?(?:\w|\{[^{}]*\}))?'*(?: ?\([\w, ]*\))?"
    r"|\([A-Za-z](?:_\w)?(?: ?, ?[A-Za-z](?:_\w)?)*\)|\|[A-Z]+\|"
    r"|\\(?:overline|angle|widehat|vec|triangle) ?\{?[A-Z]+\}?"
    r"|[A-Za-z][A-Za-z '\-]*[A-Za-z](?: (?:of|for|in) [\w ]+)?"
)
_NO_NAMES = {"e", "emptyset", "varnothing"} | (MATH_NAMES - GREEK)
_MAX_NAME_CHARS = 100
_COMMAND = re.compile(r"\\[A-Za-z]+")
_UNIT_BEHIND = re.compile(
    r"(.*[\w})]) ?(\\(?:text|mathrm|textrm|mbox) ?\{[^{}]*\}(?: ?\^ ?\{? ?\d ?\}?)?|\^ ?\{? ?\\circ ?\}?)"
)
_POWER = r"(?: ?\^ ?\{? ?\d ?\}?)?"
_WORD_BEHIND = re.compile(rf"(.*[\d}})])( (?!(?:mg|rs)\b)[A-Za-z]{{2,}}(?: [A-Za-z]+)*{_POWER})")
# Without a space, where TeX needs it ("\pi cm"), or behind a variable ("2x cm"): "2\pi in" and "\pi rs" are products.
_KNOWN_BEHIND = re.compile(
    rf"(.*(?:[\d}})]|\\pi|(?<![A-Za-z\\])[A-Za-z] )) ?((?:[ckm]m|ft|[A-Za-z]{{3,}})(?: [A-Za-z]+)*{_POWER})"
)
_LETTER_BEHIND = re.compile(r"(.*(?:[\d})]|\\pi)) ?([gshl]|m(?: ?\^ ?\{? ?[23] ?\}?)?)")


def split(text: str) -> tuple[str, list[str]]:
    """The brackets around a text ("" for none, else for example ``[)``) and its parts between commas, "and" or "or".

    Parentheses around one part are dropped. The empty set is no parts in ``{}``.
    """
    if _EMPTY.fullmatch(text):
        return "{}", []
    for opening in _CLOSING:
        if not text.startswith(opening):
            continue
        for closing in _CLOSING.values():
            if not text.endswith(closing) or (closing != _CLOSING[opening] and (opening, closing) not in _HALF_OPEN):
                continue
            inner = text[len(opening) : -len(closing)].strip()
            parts = _parts(inner)
            if parts is None:
                break
            if opening == "(" and len(parts) == 1:
                return split(inner) if closing == ")" else ("", [text])
            return (_KIND.get(opening, opening) + _KIND.get(closing, closing)).replace("<>", "()"), parts
    return "", _parts(text) or [text]


def _parts(text: str) -> list[str] | None:
    """The parts between separators outside brackets; None where brackets are closed that were not opened."""
    if r"\begin" in text:
        return [text]
    parts = _top_level(text, _COMMA)
    if parts is None or "" not in parts:
        return parts
    return [part for part in parts if part]


def split_signs(text: str) -> tuple[str, list[str]]:
    """``split``, with both values of plus or minus as two parts."""
    kind, parts = split(text)
    if r"\pm" not in text or kind not in ("", "{}"):
        return kind, parts
    upper = [part.replace(r"\pm", "+").replace(r"\mp", "-") for part in parts]
    lower = [part.replace(r"\pm", "-").replace(r"\mp", "+") for part in parts]
    return kind, [sign for pair in zip(upper, lower, strict=True) for sign in dict.fromkeys(pair)]


def members(text: str) -> list[str]:
    """The sides of "a = b = c"; one member where there is no equality."""
    return _top_level(text, _EQUALS) or [text]


def _top_level(text: str, pattern: re.Pattern[str]) -> list[str] | None:
    # In "1,000, 2,000" a comma without a space belongs to a number.
    is_spaced = re.search(r"[,;] ", text) is not None
    parts, start, depth = [], 0, 0
    for token in pattern.finditer(text):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
            if depth < 0:
                return None
        elif depth == 0 and not (is_spaced and re.match(r",\d{3}(?!\d)", text[token.start() : token.start() + 5])):
            parts.append(text[start : token.start()].strip())
            start = token.end()
    return [*parts, text[start:].strip()]


def is_name(text: str) -> bool:
    """Whether the text names a value: x, a_5, f(2), |AB|, total cost."""
    plain = TEXT.sub(r"\1", text).strip() if len(text) <= _MAX_NAME_CHARS else ""
    word = re.match(r"\\?([A-Za-z]*)", plain)
    reserved = word is not None and word[1] in _NO_NAMES
    return _NAME.fullmatch(plain) is not None and not reserved


def is_asked_value(text: str) -> bool:
    """Whether the text is a name or a formula in several letters (a+b, x^2+y^2), of which a problem may ask the value.

    In one letter (2x, x+1) it is not: "2x = 18" says something about x and is no answer 18.
    """
    letters = _COMMAND.sub("", TEXT.sub(r"\1", text))
    return is_name(text) or len(set(re.findall("[A-Za-z]", letters))) > 1


def named(text: str, accept: Callable[[str], bool] = is_name) -> tuple[str, str] | None:
    """(name, value) of "x = 3" or "3 = x", with a name that ``accept`` takes for one; None for anything else."""
    sides = members(text)
    if len(sides) != 2:
        return None
    left, right = sides
    if left and right and accept(left):
        return left.replace(" ", ""), right
    return (right.replace(" ", ""), left) if left and right and accept(right) else None


def without_unit(text: str, other: str = "") -> tuple[str, tuple[str, ...]]:
    """(expression, unit) of an expression such as ``5\\sqrt{2}\\text{ cm}``; plain numbers are for number.py.

    A single letter is a unit (``5\\sqrt{2} m``) only beside an ``other`` expression that has no letters.
    """
    match = _UNIT_BEHIND.fullmatch(text) or _WORD_BEHIND.fullmatch(text)
    unit = unit_of(f" {match[2].strip()}" if not match[2].startswith("^") else match[2]) if match else None
    if not unit:
        match = _KNOWN_BEHIND.fullmatch(text)
        unit = unit_of(f" {match[2]}") if match else None
        unit = unit if unit and is_known_unit(unit) else None
    if not unit and other and not re.search("[A-Za-z]", _COMMAND.sub("", other)):
        match = _LETTER_BEHIND.fullmatch(text)
        unit = unit_of(match[2]) if match else None
    return (match[1].strip(), unit) if match and unit else (text, ())
