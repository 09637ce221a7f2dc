"""reasoning-gym's problems in words of five families, each with a worked solution in two forms.

    problem     Now, how many legs are there in total if you have 3 cats, 2 ants?
    steps       cat: 3*4=12
                ant: 2*6=12
                12+12=24
                #### 24
    reference   Each cat has 4 legs, so 3 have 12. Each ant has 6 legs, so 2 have 12. With the 12 before this makes 24.

The steps are the model's own form. The reference says the same in words: whoever reads it must translate it, and cannot
copy it. A size of a family is a setting of its generator; family and size together are a problem's difficulty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from data_preprocess.word_families import FAMILIES, About

# The generators draw by index; nobody draws this many.
ENDLESS = 10**9
# Percent of all problems by their hash, so that no two parts share one: what a base model is trained on is in no split.
PARTS = {"base": 60, "train": 20, "tune": 10, "test": 10}
# The family that is not trained on, and the part that its problems are in instead of train, tune and test.
NOT_TRAINED_ON, HELDOUT = ("letter_counting",), "heldout"


@dataclass(frozen=True)
class Problem:
    """A problem, and the numbers that are worked out to solve it."""

    family: str
    size: str
    text: str
    about: About
    results: tuple[int, ...]

    @property
    def difficulty(self) -> str:
        return f"{self.family}_{self.size}"

    @property
    def answer(self) -> str:
        return str(self.results[-1])

    @property
    def key(self) -> str:
        """The same for the same problem in another wording: hexadecimal, uniformly spread."""
        about = self.about[: len(self.about) - FAMILIES[self.family].wording]
        return sha256(repr((self.family, about)).encode()).hexdigest()

    @property
    def part(self) -> str:
        """The one of :data:`PARTS`, or :data:`HELDOUT`, that this problem belongs to, whoever draws it."""
        place = int(self.key[:8], 16) % sum(PARTS.values())
        for part, share in PARTS.items():
            if place < share:
                return part if part == "base" or self.family not in NOT_TRAINED_ON else HELDOUT
            place -= share
        raise AssertionError("the shares add up to their sum")

    def solution(self, results: Sequence[int] | None = None) -> str:
        """One step a line, and ``#### ANSWER``; with ``results`` in the place of the true ones."""
        numbers = self.results if results is None else results
        return "\n".join([*FAMILIES[self.family].steps(self.about, numbers), f"#### {numbers[-1]}"])

    def reference(self, results: Sequence[int] | None = None) -> str:
        """The same in words, as one paragraph."""
        numbers = self.results if results is None else results
        return " ".join(FAMILIES[self.family].words(self.about, numbers))


def problems(family: str, size: str, seed: int) -> Iterator[Problem]:
    """The generator's problems without end, some of them more than once.

    Raises:
        ValueError: the steps do not lead to the generator's answer.
    """
    import reasoning_gym

    kind = FAMILIES[family]
    entries = reasoning_gym.create_dataset(kind.generator or family, size=ENDLESS, seed=seed, **kind.sizes[size])
    for number in range(ENDLESS):
        entry = entries[number]
        about = kind.read(entry["metadata"])
        if about is None:
            continue
        results = kind.solve(about)
        if str(results[-1]) != entry["answer"]:
            raise ValueError(f"{family}: {results[-1]}, and the generator says {entry['answer']}: {entry['question']}")
        yield Problem(family, size, entry["question"].strip(), about, results)
