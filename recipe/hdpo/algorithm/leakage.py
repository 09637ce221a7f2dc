"""Signs that a response was copied from its privileged text instead of solved. Each alone proves nothing.

    speaks    it speaks of a reference ("as the solution says"), which the student never sees
    run       its longest run of tokens that stands in the privileged text as well, and that run's share of it
    workless  it has far fewer tokens than the worked solution: an answer without its work

Correct responses that were sampled **without** the privileged text show them too: short solutions of one kind look
alike, and problems speak of solutions. So every figure is taken of plain correct rollouts as well, and what counts is
the difference (:func:`excess`).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipe.hdpo.algorithm.gate import WORKLESS_SHARE as WORKLESS_SHARE
from recipe.hdpo.algorithm.reference_phrases import PHRASES

# A response of which one run of the privileged text makes up this share is counted as a copy.
COPIED_SHARE = 0.5

# Odd, so that each has an inverse modulo 2^64.
_BASE, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))

# Not inside a word. Chinese and Japanese have no space between words, and Korean words have endings.
_LETTER = r"[^\W\d_\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]"


@dataclass(frozen=True)
class LeakSigns:
    """The signs in one response.

    Attributes:
        phrase: what it says of a reference; None where it says nothing.
        run: tokens of the longest run that stands in the privileged text as well.
        run_share: ``run`` over the response's tokens.
        length_share: the response's tokens over the worked solution's; None where there is no worked solution.
    """

    phrase: str | None
    run: int
    run_share: float
    length_share: float | None

    @property
    def speaks(self) -> bool:
        """Whether it speaks of a reference."""
        return self.phrase is not None

    @property
    def copies(self) -> bool:
        """Whether one run makes up :data:`COPIED_SHARE` of it or more."""
        return self.run_share >= COPIED_SHARE

    @property
    def workless(self) -> bool:
        """Whether it is shorter than :data:`WORKLESS_SHARE` of the worked solution."""
        return self.length_share is not None and self.length_share < WORKLESS_SHARE


def leak_signs(
    text: str,
    tokens: Sequence[Hashable],
    shown: Sequence[Hashable],
    worked: Sequence[Hashable] | None,
    pattern: re.Pattern[str],
) -> LeakSigns:
    """The signs in one response.

    Args:
        text, tokens: of the response, tokens by the model's tokenizer and without special ones.
        shown: tokens of the privileged text.
        worked: tokens of the worked solution; None or none of them where the row has no worked solution.
        pattern: :func:`reference_pattern`.
    """
    run = longest_shared_run(tokens, shown)
    found = pattern.search(text)
    return LeakSigns(
        phrase=found.group() if found else None,
        run=run,
        run_share=run / len(tokens) if len(tokens) else 0.0,
        length_share=len(tokens) / len(worked) if worked else None,
    )


def longest_shared_run(response: Sequence[Hashable], shown: Sequence[Hashable]) -> int:
    """Tokens of the longest run that stands in both (:func:`shared_run`)."""
    begin, end = shared_run(response, shown)
    return end - begin


def shared_run(response: Sequence[Hashable], shown: Sequence[Hashable]) -> tuple[int, int]:
    """Where in the response the longest run begins and ends that stands in both, without a gap: the longest common
    substring, the first one of several.

    A shared run of L tokens holds one of L - 1, so L is found by bisection: log2(L) comparisons of all runs of one
    length, each by sorting their hashes. Milliseconds for thousands of tokens.
    """
    ids: dict[Hashable, int] = {}
    response_N, shown_S = (
        np.array([ids.setdefault(token, len(ids)) for token in tokens], dtype=np.int64) for tokens in (response, shown)
    )
    begin, least, most = 0, 0, min(len(response_N), len(shown_S))
    while least < most:
        middle = (least + most + 1) // 2
        place = _first_shared(response_N, shown_S, middle)
        if place is None:
            most = middle - 1
        else:
            begin, least = place, middle
    return begin, begin + least


def _first_shared(response_N: np.ndarray, shown_S: np.ndarray, length: int) -> int | None:
    """Where in the response the first run of this length begins that stands in both, or None. Runs with equal hashes
    are compared token by token."""
    own_R, other_R = _hashes(response_N, length), _hashes(shown_S, length)
    _, first_C, second_C = np.intersect1d(own_R, other_R, return_indices=True)
    places = (
        int(i)
        for i, k in sorted(zip(first_C, second_C, strict=True))
        if np.array_equal(response_N[i : i + length], shown_S[k : k + length])
    )
    return next(places, None)


def _hashes(ids_N: np.ndarray, length: int) -> np.ndarray:
    """A number for each run of ``length`` ids, equal for equal runs: sum_j h(id_j) B^j modulo 2^64, by prefix sums."""
    size = len(ids_N)
    powers_N, inverses_N = (np.cumprod(np.full(size, base, dtype=np.uint64)) for base in (_BASE, _INVERSE))
    # Well mixed numbers in the place of small ones.
    mixed_N = (ids_N.astype(np.uint64) + np.uint64(1)) * _MIX
    mixed_N ^= mixed_N >> np.uint64(29)
    prefix_N = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(mixed_N * powers_N)])
    # The run that begins at i has the powers from i on: all are brought to the first ones.
    return (prefix_N[length:] - prefix_N[: size - length + 1]) * inverses_N[: size - length + 1]


def reference_pattern(more: Iterable[str] = ()) -> re.Pattern[str]:
    """Finds any of the built-in phrases that speak of a reference, and of some more.

    A phrase is a regular expression of Python's; letter case does not count, and a space stands for any white space. It
    begins and ends at a word's, as far as its script has spaces between words.

    Raises:
        ValueError: a phrase is no regular expression, or one that finds an empty text.
    """
    built_in = [phrase for phrases in PHRASES.values() for phrase in phrases]
    phrases = [*built_in, *map(_checked, more)]
    any_of = "|".join(f"(?:{_spaced(phrase)})" for phrase in phrases)
    return re.compile(f"(?<!{_LETTER})(?:{any_of})(?!{_LETTER})", re.IGNORECASE)


def read_phrases(file: Path) -> list[str]:
    """Phrases of a file, one a line; blank lines, and those that begin with #, are none.

    Raises:
        ValueError: the file cannot be read, or a line is no phrase (:func:`reference_pattern`); names file and line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{file}: the file of phrases cannot be read ({error})") from error
    found = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if line and not line.startswith("#"):
            try:
                _checked(line)
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: {error}") from error
            found.append(line)
    return found


def excess(shown: float, plain: float | None) -> float:
    """How much more often a sign is seen with the privileged text than without, at least 0.

    Args:
        shown, plain: shares of the correct rollouts with and without it; None where none is known, which counts as 0.
    """
    return max(0.0, shown - (plain or 0.0))


def _checked(phrase: str) -> str:
    try:
        # As a part of the whole pattern, in which options such as (?i) have no place.
        alone = re.compile(f"(?:{_spaced(phrase)})", re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{phrase!r} is no regular expression that can be one of several ({error})") from error
    if alone.search(""):
        raise ValueError(f"{phrase!r} is found in an empty text, so in every response")
    return phrase


def _spaced(phrase: str) -> str:
    """A phrase with white space for its spaces, also for those that ``re.escape`` has escaped."""
    return re.sub(r"(?:\\? )+(.?)", _space, phrase)


def _space(spaces: re.Match[str]) -> str:
    """Any white space; none where a question mark follows, and as many as a repetition that follows says."""
    if spaces[1] in ("*", "+", "{"):
        return rf"\s{spaces[1]}"
    return r"\s*" if spaces[1] == "?" else rf"\s+{spaces[1]}"
