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

    One row of the usual table at a time, in O(len(response) * len(shown)).
    """
    ids: dict[Hashable, int] = {}
    shown_S = np.array([ids.setdefault(token, len(ids)) for token in shown], dtype=np.int64)
    ending_S, longest, end = np.zeros(len(shown_S), dtype=np.int64), 0, 0
    for place, token in enumerate(response, 1):
        # How long the run is that ends here in the response and at each place of the shown text.
        before_S = np.concatenate([[0], ending_S[:-1]]) if len(ending_S) else ending_S
        ending_S = np.where(shown_S == ids.get(token, -1), before_S + 1, 0)
        here = int(ending_S.max(initial=0))
        if here > longest:
            longest, end = here, place
    return end - longest, end


def reference_pattern(more: Iterable[str] = ()) -> re.Pattern[str]:
    """Finds any of the built-in phrases that speak of a reference, and of some more.

    A phrase is a regular expression of Python's; letter case does not count, and a space stands for any white space. It
    begins and ends at a word's, as far as its script has spaces between words.

    Raises:
        ValueError: a phrase is no regular expression, or one that finds an empty text.
    """
    built_in = [phrase for phrases in PHRASES.values() for phrase in phrases]
    phrases = [*built_in, *map(_checked, more)]
    any_of = "|".join(f"(?:{re.sub(r' +(.?)', _space, phrase)})" for phrase in phrases)
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
        alone = re.compile(phrase, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{phrase!r} is no regular expression ({error})") from error
    if alone.search(""):
        raise ValueError(f"{phrase!r} is found in an empty text, so in every response")
    return phrase


def _space(spaces: re.Match[str]) -> str:
    """White space for the spaces of a phrase, or none where a question mark follows."""
    return r"\s*" if spaces[1] == "?" else rf"\s+{spaces[1]}"
