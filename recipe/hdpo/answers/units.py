"""The unit behind a number: "kg", "square inches", "eggs per day". Units are compared and never converted."""

import re

from recipe.hdpo.answers.text import TEXT

_SYNONYMS = {
    "m": "meter metre mtr", "cm": "centimeter centimetre", "mm": "millimeter millimetre", "km": "kilometer kilometre",
    "g": "gram gm", "kg": "kilogram kilo", "mg": "milligram", "l": "liter litre", "ml": "milliliter millilitre",
    "h": "hour hr", "min": "minute", "s": "second sec", "d": "day", "week": "wk", "month": "", "year": "yr",
    "in": "inch", "ft": "foot feet", "yd": "yard", "mi": "mile", "lb": "pound", "oz": "ounce", "gal": "gallon",
    "dollar": "usd buck", "cent": "", "euro": "eur", "rupee": "rs", "deg": "degree", "rad": "radian", "unit": "",
    "n": "newton", "j": "joule", "w": "watt", "v": "volt", "a": "ampere amp", "k": "kelvin", "hz": "hertz",
    "kw": "kilowatt", "celsius": "c", "fahrenheit": "f", "mol": "mole", "pa": "pascal", "ohm": "",
    "kj": "kilojoule", "mj": "megajoule", "kb": "kilobyte", "mb": "megabyte", "gb": "gigabyte", "tb": "terabyte",
    "db": "decibel",
}  # fmt: skip
_UNITS = {word: unit for unit, words in _SYNONYMS.items() for word in (unit, *words.split())}
_WHOLE_UNITS = {"kwh": ("kw", "h"), "mph": ("mi", "/", "h")} | dict.fromkeys(("kmph", "kmh", "kph"), ("km", "/", "h"))
# In small letters these are products of variables ("8 mb").
_CAPITALS = frozenset(["kJ", "MJ", "kB", "KB", "MB", "GB", "TB", "dB"])
_POWERS = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cu": "^3", "cubed": "^3"}

# Words behind a number that make another number, or no number, of it.
_NO_UNIT_WORDS = (
    "or and to plus minus over divided than at not no is are was isn if else when unless mod modulo root squared cubed "
    "factorial half halves third thirds tenth tenths hundredth hundredths thousandth thousandths about approximately "
    "hundred hundreds thousand thousands million millions billion billions trillion trillions dozen dozens "
    "wrong false remainder choose sqrt cbrt pi sin cos tan csc cot log ln exp max gcd lcm inf infinity "
    "alpha beta gamma delta theta lambda mu sigma omega phi "
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "mil millón millon millones mille tausend hundert millionen milliarden milhão milhões tysiąc tysiące tysięcy yüz "
    "или либо тысяча тысячи тысяч сотня сотни сотен миллион миллиона миллионов миллиард миллиарда миллиардов "
    "половина половиной мільйон мільйона мільйонів тисяча тисячі тисяч nghìn triệu tỷ"
)
_NO_UNITS = frozenset(_NO_UNIT_WORDS.split())
# Of Chinese, Japanese and Korean, in which they stand without spaces.
_NUMBER_SIGNS = frozenset("零〇一二两兩三四五六七八九十百千万萬億亿兆半倍或不십백천만억조반배")
_NO_REMARK = frozenset(["or", "not", "wrong", "mod"])
# Other single letters are variables; the first five may touch their number.
_LETTERS = "mgshlLNJWVAKCF"
_MAX_UNIT_CHARS = 80
_DEGREES = re.compile(r"\^ ?\{? ?(?:\\circ|\\degree) ?\}?|\\circ(?![a-z])|\\degree|°")
_REMARK = re.compile(r" ?\(([A-Za-z][A-Za-z -]*)\)$")
_TOKEN = re.compile(r"([^\W\d_](?:[^\W\d_]|['-])*)(?: ?(?:\^ ?\{? ?(\d) ?\}?|([²³])))?|(/)|([ .]|\\cdot|·)")


def unit_of(text: str) -> tuple[str, ...] | None:
    """The unit that stands behind a number, as words; () without one, None where the text is no unit."""
    if not text:
        return ()
    if len(text) > _MAX_UNIT_CHARS:
        return None
    plain = TEXT.sub(r" \1", text)
    plain = _DEGREES.sub(" deg", plain)
    remark = _REMARK.search(plain)
    if remark and not _NO_REMARK.isdisjoint(remark.group(1).lower().split()):
        return None
    plain = plain[: remark.start()] if remark else plain
    words: list[str] = []
    position = 0
    while position < len(plain):
        token = _TOKEN.match(plain, position)
        if token is None:
            return None
        position = token.end()
        word, power, mark, slash, _ = token.groups()
        is_power = bool(words) and word in ("squared", "cubed")
        if word is not None and not is_power and not _may_be_unit(word, token.start() == 0):
            return None
        if word is not None or slash:
            words += _in_words(word or "/", power or {"²": "2", "³": "3"}.get(mark or "", ""))
    return tuple(_attach_powers(words))


def _may_be_unit(word: str, touches_number: bool) -> bool:
    """Letters that may as well be a product of variables (5x, 5 ab) are no unit."""
    lower = word.lower()
    if not word.isascii():
        return lower not in _NO_UNITS and _is_foreign_word(word)
    if len(word) == 1:
        return word in (_LETTERS[:5] if touches_number else _LETTERS) or (word == "a" and not touches_number)
    is_product = lower in map(str.lower, _CAPITALS) and word not in _CAPITALS
    if lower in _NO_UNITS or is_product or (touches_number and word == "rs"):
        return False
    if _singular(lower) in _UNITS or lower in _WHOLE_UNITS:
        return True
    if touches_number:
        return False
    if lower in _POWERS or lower in ("per", "of", "an"):
        return True
    return len(word) > 2 and not set(lower) <= set("abcxyz") and not set(lower).isdisjoint("aeiouy")


def _is_foreign_word(word: str) -> bool:
    """Greek, and one or two letters of other alphabets, may be variables; in Chinese, Japanese and Korean none is."""
    is_greek = any("\u0370" <= char <= "\u03ff" for char in word)
    return (len(word) > 2 or min(word) >= "\u3041") and not is_greek and _NUMBER_SIGNS.isdisjoint(word)


def is_known_unit(unit: tuple[str, ...]) -> bool:
    """Whether every word of the unit has a meaning as a unit: "cm^2" and "mi / h", not "eggs"."""
    return all(word == "/" or word.partition("^")[0] in _UNITS.values() for word in unit)


def _singular(word: str) -> str:
    for ending in ("es", "s"):
        stem = word.removesuffix(ending)
        if stem != word and stem in _UNITS and len(stem) > 1:
            return stem
    return word.removesuffix("s") if len(word) > 3 and word not in _UNITS else word


def _in_words(word: str, power: str) -> list[str]:
    lower = word.lower()
    if lower in _WHOLE_UNITS:
        return list(_WHOLE_UNITS[lower])
    if lower in ("per", "a", "an"):
        return ["/"]
    if lower in _POWERS:
        return [_POWERS[lower]]
    if lower == "of":
        return []
    singular = _singular(lower)
    return [_UNITS.get(singular, singular) + (f"^{power}" if power else "")]


def _attach_powers(words: list[str]) -> list[str]:
    """The square of "square inches" and "inches squared" at the unit: "in^2"."""
    joined: list[str] = []
    waiting = ""
    for word in words:
        if word in ("^2", "^3"):
            waiting = word
        else:
            joined.append(word + waiting)
            waiting = ""
    if waiting and joined:
        joined[-1] += waiting
    return joined


def same_unit(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Whether two units agree: a missing one does with any, and so do "eggs" and "brown eggs"."""
    if not left or not right or left == right:
        return True
    # "12 dollars per hour" and "$12 per hour", of which text.py has dropped the sign.
    if left == ("dollar", *right) or right == ("dollar", *left):
        return True
    if not (set(left) <= set(right) or set(right) <= set(left)):
        return False
    return not any(is_known_unit((word,)) for word in set(left) ^ set(right))
