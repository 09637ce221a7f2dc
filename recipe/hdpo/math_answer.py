"""Find the final answer in a response and compare it with the ground truth, as far as text alone decides.

    "...\\n#### 18"  or  "... \\\\boxed{18}."   ->  "18"

The marker that stands last in the response counts. What text alone leaves open (is 1/2 equal to 0.5?) goes to
math-verify, in a process of its own: see math_process.py.
"""

import re
from collections import deque
from decimal import Decimal

# Longer numbers are never converted; a ground truth of this length does not occur.
MAX_DIGITS = 100

_HASH_LINE = re.compile(r"####[ \t]*([^\s#][^\r\n]*)")
_BOXED_OR_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}\\]|[{}]")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_INTEGER = re.compile(rf"[-+]?\d{{1,{MAX_DIGITS}}}", re.ASCII)
_DECIMAL = re.compile(rf"[-+]?(?:\d{{1,{MAX_DIGITS}}}(?:\.\d{{0,{MAX_DIGITS}}})?|\.\d{{1,{MAX_DIGITS}}})", re.ASCII)


def final_answer(response: str) -> str | None:
    """The text that the last marker points to, stripped; None where there is no marker with a text.

    A marker is "####" followed by text on the same line, or a ``\\boxed{...}`` (also ``\\fbox``) with balanced braces.
    """
    boxed_at, boxed = _last_boxed(response)
    hash_at, hashed = _last_hash_line(response)
    answer = hashed if hash_at > boxed_at else boxed
    return answer.strip() or None


def _last_hash_line(response: str) -> tuple[int, str]:
    """(position, text after it) of the last "####" with text on its line; (-1, "") without one."""
    last = deque(_HASH_LINE.finditer(response), maxlen=1)
    return (last[0].start(), last[0].group(1).rstrip("# \t")) if last else (-1, "")


def _last_boxed(response: str) -> tuple[int, str]:
    """(position, content) of the ``\\boxed{...}`` that opens last among the closed ones; (-1, "") without one.

    One pass with a stack of open braces, so the time is linear in the response, however deep it nests.
    """
    open_braces: list[tuple[int, int, bool]] = []
    best_at, best = -1, (0, 0)
    for match in _BOXED_OR_BRACE.finditer(response):
        token = match.group()
        if token == "}":
            if open_braces:
                at, content, is_boxed = open_braces.pop()
                if is_boxed and at > best_at:
                    best_at, best = at, (content, match.start())
        elif token == "{" or len(token) > 2:
            open_braces.append((match.start(), match.end(), token != "{"))
    return best_at, response[best[0] : best[1]]


def normalise(answer: str) -> str:
    """Drop what does not change an answer: outer white space and braces, ``$``, a final period, commas in 1,000."""
    text = answer.strip().removesuffix(".").strip()
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(opening) and text.endswith(closing):
            text = text[2:-2]
    for written, plain in ((r"\$", ""), ("$", ""), (r"\%", "%"), ("{,}", ","), (r"\!", "")):
        text = text.replace(written, plain)
    text = text.strip().removesuffix(".").strip()
    if _is_enclosed(text):
        text = text[1:-1].strip()
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    return text


def _is_enclosed(text: str) -> bool:
    """True for "{x}" and "{{x}}", False for "{x}+{y}"."""
    if not (text.startswith("{") and text.endswith("}")) or text.endswith("\\}"):
        return False
    depth = 0
    for position, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return position == len(text) - 1
    return False


def same_answer(answer: str, truth: str) -> bool | None:
    """True or False where the two texts decide it, None where they have to be understood as mathematics.

    Equal texts after ``normalise``, and plain numbers of equal value, are the same; two whole numbers of different
    value are not.
    """
    left, right = normalise(answer), normalise(truth)
    if left == right:
        # Nothing is not an answer, even where the ground truth is empty.
        return bool(left)
    if not left or not right:
        return False
    if _DECIMAL.fullmatch(left) and _DECIMAL.fullmatch(right) and Decimal(left) == Decimal(right):
        return True
    if _INTEGER.fullmatch(left) and _INTEGER.fullmatch(right):
        return False
    return None
