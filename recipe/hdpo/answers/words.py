"""Answers that are words. As text and not as formulas: "on" is not "no", though both are a product of n and o."""

import re
import unicodedata

from recipe.hdpo.answers.parts import named
from recipe.hdpo.answers.text import MATH_NAMES, TEXT

# Dates, years, scores, ratios: "2023-05-10", "1914-1918", "3-2", "1:2:3", "192.168.0.1". Not "12 - 5" nor "3/4".
_SERIES = re.compile(r"\d+(?:--?\d+)+|\d+(?:\.\d+){2,}|\d+(?:/\d+){2,}|\d+(?: ?: ?\d+){2,}", re.ASCII)
_ZERO = re.compile(r"\b0(?=\d\b)", re.ASCII)
_WORDS = re.compile(r"[A-Za-z][A-Za-z '.-]*")
_CHOICE = re.compile(r"\(([A-Za-z ]+)\)|([A-Z])\)|(?i:option|choice) (?:([A-J])[).]?|\(([A-J])\))")
# What no text outside ASCII has: signs of mathematics, and those between the parts of a list.
_NO_TEXT = re.compile(r"[\\{}$^_=<>+*/,;]|\b(?:and|or)\b")
_OPTION = r"(?:(?i:option|choice) )?"
# Not "(A) + 3" nor "(A) \cup (B)", where the letter is a part of a formula, nor "A: 3, B: 4", which is several choices.
_CHOICE_AND_VALUE = re.compile(
    _OPTION + r"(?:(?:\(([A-J])\)|([A-J])[.)])(?:[ :]+|(?=[\d\\$-]))|([A-J]): +)(?!.*[ ,;]\(?[A-J][):] )"
    r"(?!\\(?:cup|cap|times|cdot|setminus|to)\b)([^\s+*/^=<>_,&|].*)",
    re.DOTALL,
)
_LETTER = re.compile(_OPTION + r"\(?([A-J])[).]?")


def choice_and_value(text: str) -> tuple[str, str] | None:
    r"""("B", "12") of ``(B) 12``, ``B. 12`` and ``\textbf{(B)}\ 12``; None where a text is no choice with its value."""
    found = _CHOICE_AND_VALUE.fullmatch(TEXT.sub(r"\1 ", text).strip())
    return (found[1] or found[2] or found[3], found[4].strip()) if found else None


def choice(text: str) -> str | None:
    r"""The letter of a choice alone: ``B``, ``(B)``, ``\text{(B)}``, ``Option B``."""
    found = _LETTER.fullmatch(TEXT.sub(r"\1", text).strip())
    return found[1] if found else None


def same_words(left: str, right: str) -> bool | None:
    """Whether two texts are the same words, in any case; None where both may be formulas. "(B)" is the choice "B".

    A ground truth of numbers between hyphens, points, slashes or colons is text too.
    """
    left, right = (TEXT.sub(r"\1", side).strip() for side in (left, right))
    left, right = (_CHOICE.sub(r"\1\2\3\4", side) if _CHOICE.fullmatch(side) else side for side in (left, right))
    if _SERIES.fullmatch(right):
        return _same_series(left, right)
    if "\\" not in left + right and left.casefold() == right.casefold():
        return True
    return False if _is_text(right) or _is_text(left) else None


def _same_series(answer: str, truth: str) -> bool:
    """In any spacing, and with "5" for "05"."""
    _, value = named(answer) or ("", answer)
    left, right = (_ZERO.sub("", re.sub(" ?(:|--?) ?", lambda sign: sign[1][0], side)) for side in (value, truth))
    return left == right


def _is_text(formula: str) -> bool:
    """Whether letters are words ("no", "CAB") and no product ("xy", "abc") or name of mathematics ("pi", "sin x")."""
    if _is_foreign(formula):
        return True
    words = re.findall("[A-Za-z]+", formula)
    if not _WORDS.fullmatch(formula) or not MATH_NAMES.isdisjoint(words) or not {"and", "or"}.isdisjoint(words):
        return False
    letters = "".join(words)
    is_product = letters.islower() and (set(letters) <= set("abcxyz") or set(letters).isdisjoint("aeiou"))
    return len(letters) > 1 and not is_product


def _is_foreign(text: str) -> bool:
    """Whether a text has letters or pictures outside ASCII ("да", "café", "✓") and nothing of a formula."""
    if text.isascii() or _NO_TEXT.search(text):
        return False
    # ℝ is R in another form, and mathematics.
    kinds = {unicodedata.category(char) for char in unicodedata.normalize("NFKC", text) if not char.isascii()}
    return "Sm" not in kinds and any(kind == "So" or kind[0] == "L" for kind in kinds)
