r"""The text of an answer without what does not change it, and plain notation as LaTeX.

    "**1{,}800** "  ->  "1800"        r"\text{Monday}."  ->  "Monday"        "pi/2"  ->  r"\pi/2"

How it is taken apart is for answers/parts.py, what it is worth for answers/number.py and answers/compare.py.
"""

# ruff: noqa: RUF001 - letters that look like others are what is replaced here.
import re

_TO_SPACE = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t\r\n"
_TO_NOTHING = (
    "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\ufe0e\ufe0f\ufeff"
)
_CHARACTERS = str.maketrans(
    dict.fromkeys(_TO_SPACE, " ")
    | dict.fromkeys(_TO_NOTHING)
    | dict.fromkeys("−–—‐‑‒﹣－", "-")
    | dict(zip("．，：％（）＝＋", ".,:%()=+", strict=True))
    | dict.fromkeys("“”„", '"')
    | {"’": "'"}
)

_GREEK = "alpha beta gamma delta epsilon theta lambda mu nu rho sigma tau phi omega Gamma Delta Theta Sigma Phi Omega"
_FUNCTIONS = "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan log ln exp"
_PLAIN_NAMES = {name: rf"\{name} " for name in (*_GREEK.split(), "pi", *_FUNCTIONS.split())}
_PLAIN_NAMES |= dict.fromkeys(("infinity", "infty", "inf", "oo"), r"\infty ")
_PLAIN_NAMES |= {"asin": r"\arcsin ", "acos": r"\arccos ", "atan": r"\arctan "}
GREEK = frozenset(_GREEK.split())
# Words that are mathematics and not text.
MATH_NAMES = frozenset(_PLAIN_NAMES) | {"sqrt", "cbrt", "abs", "frac", "gcd", "lcm", "max", "min", "mod", "binom"}

_SYMBOLS = {"√": r"\sqrt ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\neq ", "×": r"\times ", "÷": r"\div "}
_SYMBOLS |= {
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "→": r"\to ",
}
_SYMBOLS |= {"π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "φ": r"\phi "}
_SYMBOLS |= {"ω": r"\omega ", "±": r"\pm ", "≈": r"\approx ", "≡": r"\equiv ", "°": r"^{\circ}", "º": r"^{\circ}"}
_SYMBOLS |= {"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"}
_SYMBOLS |= {"γ": r"\gamma ", "δ": r"\delta ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "¢": " cents"}
# A Greek word stays: three letters in a row that are not all symbols.
_WORD = rf"(?=[{''.join(_SYMBOLS)}]*[^\W{''.join(_SYMBOLS)}])[\u0370-\u03ff\u1f00-\u1fff]{{3,}}"
_SYMBOL = re.compile(f"{_WORD}|[{''.join(_SYMBOLS)}]")
# Runs of them are one exponent or one index.
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n")
_SCRIPT = re.compile(f"[{''.join(map(chr, _RAISED))}]+|[{''.join(map(chr, _LOWERED))}]+")
# Of any script.
_DIGIT = re.compile(r"[^\W\D_0-9]")
_OPERATORS = {"**": "^", "<=": r"\le ", ">=": r"\ge ", "!=": r"\neq ", "*": r"\cdot "}
_OPERATOR = re.compile(r"\*\*|<=|>=|!=(?!=)|\*")
_NAME = re.compile(rf"(?<![\\A-Za-z])({'|'.join(sorted(_PLAIN_NAMES, key=len, reverse=True))})(?![A-Za-z])")
_CALL = re.compile(r"(?<![\\A-Za-z])(sqrt|cbrt|abs) ?\(|\\sqrt ?\(|\^ ?\(")
_LONG_POWER = re.compile(r"\^ ?(-\d+|\d{2,})")

# "Answer: 18", "the final answer is 18", "= 18".
LABEL = re.compile(
    r"(?:so,? )?(?:the )?(?:final |correct )?(?:answer|ans|result|solution|total)\b\**\s*"
    r"(?:(?:is|equals)\b\s*:?|=|:)[\s*]*"
    r"|=\s*",
    re.IGNORECASE,
)
_TEXT_COMMANDS = (
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|mbox|boldsymbol|bm|emph|underline|boxed|fbox)"
)
_WRAPPER = re.compile(_TEXT_COMMANDS + r"\s*(?=\{)")
TEXT = re.compile(_TEXT_COMMANDS + r"\s*\{([^{}]*)\}")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?", re.ASCII)
_LATEX = (
    (re.compile(r"(?<!\\)\\[!]|\\(?:left|right)(?![a-zA-Z])|\\(?:displaystyle|[bB]igg?[lr]?)(?![a-zA-Z])\s*"), ""),
    (re.compile(r"(?<!\\)\\(?:[,;: ]|q?quad(?![a-zA-Z]))|~"), " "),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
)
_REPLACED = ((r"\$", ""), ("$", ""), (r"\%", "%"), ("{,}", ","), (r"\lbrace", r"\{"), (r"\rbrace", r"\}"))
_MAX_PEELS = 8
_CURRENCIES = "€£¥₹₽"
_CURRENCY = re.compile(r"(?:Rs\.?|USD|EUR|GBP|INR|JPY|CNY|RUB) ?(?=\d|\.\d)", re.ASCII)
_MONTHS = "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
_DAY = re.compile(rf"\b({_MONTHS}|Nov(?:ember)?|Dec(?:ember)?)(\.? \d\d?)(?:st|nd|rd|th)\b", re.IGNORECASE | re.ASCII)


def normalise(answer: str) -> str:
    """Drop what does not change an answer: white space, mark-up, delimiters, ``$``, a label, commas in 1,000."""
    text = answer
    if not answer.isascii():
        text = _SCRIPT.sub(_script, answer.translate(_CHARACTERS))
        text = _SYMBOL.sub(lambda match: _SYMBOLS.get(match.group(), match.group()), text)
        text = _DIGIT.sub(lambda match: str(int(match.group())), text)
    for written, plain in _REPLACED:
        text = text.replace(written, plain)
    if "\\" in text or "~" in text:
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    text = _DAY.sub(r"\1\2", " ".join(text.split()))
    for _ in range(_MAX_PEELS):
        peeled = _peel(text)
        if peeled == text:
            break
        text = peeled
    return re.sub("[, ]", "", text) if _THOUSANDS.fullmatch(text) else text


def _script(run: re.Match[str]) -> str:
    mark, table = ("^", _RAISED) if ord(run.group()[0]) in _RAISED else ("_", _LOWERED)
    return f"{mark}{{{run.group().translate(table)}}}"


def _peel(text: str) -> str:
    text = text.strip('*`" ').rstrip(f".,;:。{_CURRENCIES}").lstrip(f":{_CURRENCIES}").strip()
    text = _CURRENCY.sub("", text, count=1) if _CURRENCY.match(text) else text
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]"), ("__", "__"), ("_", "_"), ("'", "'")):
        if text.startswith(opening) and text.endswith(closing) and len(text) > 2 * len(opening):
            text = text[len(opening) : -len(closing)]
    wrapper = _WRAPPER.match(text)
    start = wrapper.end() if wrapper else 0
    if text[start : start + 1] == "{" and closing_brace(text, start) == len(text) - 1:
        text = text[start + 1 : -1]
    as_text = TEXT.match(text)
    if as_text and LABEL.fullmatch(as_text[1].strip()):
        return text[as_text.end() :]
    label = LABEL.match(text)
    return (text[label.end() :] or text) if label else text.strip()


def closing_brace(text: str, start: int) -> int:
    """Where the brace (or parenthesis) that opens at ``start`` is closed; -1 if it is not."""
    opening, closing = text[start], {"{": "}", "(": ")"}[text[start]]
    depth, position = 0, start
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 1
        depth += (char == opening) - (char == closing)
        if depth == 0:
            return position
        position += 1
    return -1


def to_latex(text: str) -> str:
    """Plain notation as LaTeX: ``pi/2``, ``x**2``, ``sqrt(x)``, ``sin(x)``, ``x <= 3``."""
    text = _OPERATOR.sub(lambda match: _OPERATORS[match.group()], text)
    text = _NAME.sub(lambda match: _PLAIN_NAMES[match.group()], text)
    position = 0
    while (call := _CALL.search(text, position)) is not None:
        end = closing_brace(text, call.end() - 1)
        position = call.end()
        if end >= 0:
            opening = {"abs": r"\left|", "cbrt": r"\sqrt[3]{", "^": "^{"}.get(
                call.group(1) or call.group()[0], r"\sqrt{"
            )
            closing = r"\right|" if call.group(1) == "abs" else "}"
            text = f"{text[: call.start()]}{opening}{text[call.end() : end]}{closing}{text[end + 1 :]}"
            position = call.start() + len(opening)
    return _LONG_POWER.sub(r"^{\1}", text)
