"""Answers that are words. As text and not as formulas: "on" is not "no", though both are a product of n and o."""

import re

from recipe.hdpo.answers.text import MATH_NAMES, TEXT

_WORDS = re.compile(r"[A-Za-z][A-Za-z '.-]*")
_CHOICE = re.compile(r"\(([A-Za-z ]+)\)|([A-Z])\)")
# Not "(A) + 3" nor "(A) \cup (B)", where the letter is a part of a formula.
_CHOICE_AND_VALUE = re.compile(
    r"(?:\(([A-J])\)|([A-J])[.)])(?:[ :]+|(?=[\d\\$-]))(?!\\(?:cup|cap|times|cdot|setminus|to)\b)([^\s+*/^=<>_,&|].*)",
    re.DOTALL,
)
_LETTER = re.compile(r"\(?([A-J])[).]?")


def choice_and_value(text: str) -> tuple[str, str] | None:
    r"""("B", "12") of ``(B) 12``, ``B. 12`` and ``\textbf{(B)}\ 12``; None where a text is no choice with its value."""
    found = _CHOICE_AND_VALUE.fullmatch(TEXT.sub(r"\1 ", text).strip())
    return (found[1] or found[2], found[3].strip()) if found else None


def choice(text: str) -> str | None:
    r"""The letter of a choice alone: ``B``, ``(B)``, ``\text{(B)}``."""
    found = _LETTER.fullmatch(TEXT.sub(r"\1", text).strip())
    return found[1] if found else None


def same_words(left: str, right: str) -> bool | None:
    """Whether two texts are the same words, in any case; None where both may be formulas. "(B)" is the choice "B"."""
    left, right = (TEXT.sub(r"\1", side).strip() for side in (left, right))
    left, right = (_CHOICE.sub(r"\1\2", side) if _CHOICE.fullmatch(side) else side for side in (left, right))
    if "\\" not in left + right and left.casefold() == right.casefold():
        return True
    return False if _is_text(right) or _is_text(left) else None


def _is_text(formula: str) -> bool:
    """Whether letters are words ("no", "CAB") and no product ("xy", "abc") or name of mathematics ("pi", "sin x")."""
    words = re.findall("[A-Za-z]+", formula)
    if not _WORDS.fullmatch(formula) or not MATH_NAMES.isdisjoint(words) or not {"and", "or"}.isdisjoint(words):
        return False
    letters = "".join(words)
    is_product = letters.islower() and (set(letters) <= set("abcxyz") or set(letters).isdisjoint("aeiou"))
    return len(letters) > 1 and not is_product
