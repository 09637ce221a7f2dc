"""Five families of reasoning-gym's problems in words: how each is read, solved, and written in two forms.

What a reader of an entry returns says everything that a problem is about; the other functions read nothing else. They
take the worked-out numbers as an argument, so that a text can be written with other numbers in their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# What a problem is about, family by family: see the functions that read an entry's metadata.
About = tuple[Any, ...]
# Of most animals. Others have none (a snake), 5 (a starfish), 8 (a spider), 10 (a crab) or 14 (a woodlouse).
USUAL_LEGS = {2, 4, 6}


@dataclass(frozen=True)
class Family:
    """How the problems of a generator are read, solved and written.

    Attributes:
        sizes: the generator's settings by size.
        read: what an entry's metadata say; None where there is nothing to work out.
        solve: the numbers that are worked out, in order, the answer last.
        steps, words: steps and reference with these numbers in the place of the worked-out ones.
        wording: how many of the last things that an entry says are its wording alone.
        generator: reasoning-gym's name, where several families are made of one generator's entries.
    """

    sizes: dict[str, dict[str, Any]]
    read: Callable[[dict[str, Any]], About | None]
    solve: Callable[[About], tuple[int, ...]]
    steps: Callable[[About, Sequence[int]], list[str]]
    words: Callable[[About, Sequence[int]], list[str]]
    wording: int = 0
    generator: str = ""


def read_sum(metadata: dict[str, Any]) -> About:
    """ "27 + 35 - 12" -> (27, ("+", 35), ("-", 12))."""
    first, *rest = metadata["expression"].split(" ")
    return (int(first), *zip(rest[::2], map(int, rest[1::2]), strict=True))


def solve_sum(about: About) -> tuple[int, ...]:
    totals = [about[0]]
    for sign, term in about[1:]:
        totals.append(totals[-1] + term if sign == "+" else totals[-1] - term)
    return tuple(totals[1:])


def sum_steps(about: About, totals: Sequence[int]) -> list[str]:
    lefts = (about[0], *totals)
    return [f"{a}{sign}{b}={c}" for a, (sign, b), c in zip(lefts, about[1:], totals, strict=False)]


def sum_words(about: About, totals: Sequence[int]) -> list[str]:
    said = [f"Start with {about[0]}."]
    for (sign, term), total in zip(about[1:], totals, strict=True):
        said.append(f"Add {term}, which makes {total}." if sign == "+" else f"Take away {term}, which leaves {total}.")
    return said


def read_legs(metadata: dict[str, Any]) -> About:
    """{"cat": 3} -> (("cat", 3, 4),): the animal, how many, legs of each."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    return tuple((animal, count, ANIMALS[animal]) for animal, count in metadata["animals"].items())


def read_usual(metadata: dict[str, Any]) -> About | None:
    """As :func:`read_legs`; None with an animal that has other than :data:`USUAL_LEGS`."""
    about = read_legs(metadata)
    return about if {legs for _, _, legs in about} <= USUAL_LEGS else None


def read_unusual(metadata: dict[str, Any]) -> About | None:
    """What :func:`read_usual` has none of."""
    return None if read_usual(metadata) else read_legs(metadata)


def solve_legs(about: About) -> tuple[int, ...]:
    """Legs of the first animals; of the second ones, and of both; of the third ones, and of all three; ..."""
    results: list[int] = []
    for _, count, legs in about:
        results += [count * legs, results[-1] + count * legs] if results else [count * legs]
    return tuple(results)


def leg_steps(about: About, results: Sequence[int]) -> list[str]:
    lines: list[str] = []
    for i, (animal, count, legs) in enumerate(about):
        product = results[max(0, 2 * i - 1)]
        lines.append(f"{animal}: {count}*{legs}={product}")
        if i:
            lines.append(f"{results[2 * i - 2]}+{product}={results[2 * i]}")
    return lines


def leg_words(about: About, results: Sequence[int]) -> list[str]:
    said: list[str] = []
    for i, (animal, count, legs) in enumerate(about):
        product = results[max(0, 2 * i - 1)]
        said.append(f"Each {animal} has {legs} legs, so {count} {'has' if count == 1 else 'have'} {product}.")
        if i:
            said.append(f"With the {results[2 * i - 2]} before this makes {results[2 * i]}.")
    return said


def read_equation(metadata: dict[str, Any]) -> About | None:
    """ "5 - 8*e = -51" -> (-8, 5, -51, "e"): factor, constant, right side, unknown. None for "e = 3"."""
    unknown = metadata["variable"]
    left, right = metadata["equation"].split(" = ")
    factor, constant = 0, 0
    for sign, term in re.findall(r"(^|[+-]) ?([^ ]+)", left):
        minus = -1 if sign == "-" else 1
        if term.endswith(unknown):
            factor = minus * int(term.removesuffix(unknown).removesuffix("*") or 1)
        else:
            constant = minus * int(term)
    return None if (factor, constant) == (1, 0) else (factor, constant, int(right), unknown)


def solve_equation(about: About) -> tuple[int, ...]:
    """The factor's multiple of the unknown where there is a constant, then the unknown where there is a factor."""
    factor, constant, right, _ = about
    multiple = abs(right - constant)
    return (*([multiple] if constant else []), *([multiple // abs(factor)] if abs(factor) > 1 else []))


def equation_steps(about: About, results: Sequence[int]) -> list[str]:
    factor, constant, right, _ = about
    lines = []
    if constant:
        # Whichever of both is larger is what the other is taken from: 26-6 for 5*b + 6 = 26, 5+51 for 5 - 8*e = -51.
        first, second = (constant, right) if factor < 0 else (right, constant)
        lines.append(f"{first}{'-' if second > 0 else '+'}{abs(second)}={results[0]}")
    if abs(factor) > 1:
        lines.append(f"{results[0] if constant else right}/{abs(factor)}={results[-1]}")
    return lines


def equation_words(about: About, results: Sequence[int]) -> list[str]:
    factor, constant, right, unknown = about
    said = []
    if constant:
        first, second = (constant, right) if factor < 0 else (right, constant)
        how = f"Take {second} from {first}" if second > 0 else f"To {first} give back {abs(second)}"
        said.append(f"{how}, which is {results[0]}.")
    if abs(factor) > 1:
        shared = results[0] if constant else right
        said.append(f"Now {abs(factor)} times {unknown} is {shared}, so {unknown} must be {results[-1]}.")
    else:
        said.append(f"That is {unknown} itself.")
    return said


def read_letters(metadata: dict[str, Any]) -> About:
    """(the letter, word, word, ...)."""
    return (metadata["target_letter"], *metadata["span"])


def solve_letters(about: About) -> tuple[int, ...]:
    """How often the letter is in each word, then in all of them."""
    counts = [word.lower().count(about[0]) for word in about[1:]]
    return (*counts, sum(counts))


def letter_steps(about: About, results: Sequence[int]) -> list[str]:
    lines = [f"{word}: {count}" for word, count in zip(about[1:], results, strict=False)]
    return [*lines, f"{'+'.join(map(str, results[:-1]))}={results[-1]}"]


def letter_words(about: About, results: Sequence[int]) -> list[str]:
    said = ", ".join(f"{count} in {word}" for word, count in zip(about[1:], results, strict=False))
    return [f"The letter {about[0]} is found {said}.", f"Counted up, this gives {results[-1]}."]


def exactly(**settings: int) -> dict[str, int]:
    """The generators take ranges: terms=3 -> min_terms=3, max_terms=3."""
    return {f"{end}_{what}": n for what, n in settings.items() for end in ("min", "max")}


# Small herds, so that a problem asks for the legs of an animal more than for the product.
HERDS = {str(n): exactly(animals=n) | {"max_instances": 6} for n in (2, 3, 4)}

FAMILIES = {
    "chain_sum": Family(
        {f"{terms}x{digits}": exactly(terms=terms, digits=digits) for digits in (1, 2) for terms in (3, 4, 5)},
        read_sum,
        solve_sum,
        sum_steps,
        sum_words,
    ),
    "leg_counting": Family(HERDS, read_usual, solve_legs, leg_steps, leg_words),
    # Of which at least one has other numbers of legs: no base model is trained on these, so it must guess.
    "new_animals": Family(HERDS, read_unusual, solve_legs, leg_steps, leg_words, generator="leg_counting"),
    "simple_equations": Family(
        {str(n): exactly(terms=2) | {"max_value": n} for n in (10, 20)},
        read_equation,
        solve_equation,
        equation_steps,
        equation_words,
        # The letter of the unknown.
        wording=1,
    ),
    "letter_counting": Family(
        {str(n): exactly(words=n) for n in (3, 4, 5, 6)},
        read_letters,
        solve_letters,
        letter_steps,
        letter_words,
    ),
}
