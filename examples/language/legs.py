"""What trained models write for the legs of an animal: facts that they learned, or numbers seen beside other problems.

    python -m examples.language.legs STUDY [--json FILE]

STUDY is the folder of models and logs of `make study PLAN=language`; samples of its reported runs are read there. A
line `snake: 3*0=0` is counted for its animal where the response has one such line for each animal of the problem,
with the problem's numbers of animals in the problem's order; names are often misspelled. How many responses do not fit
is said, and how many of all, and of the right ones, have fewer such lines than there are animals.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_preprocess.word_families import USUAL_LEGS
from recipe.hdpo.evaluation.records import GREEDY, SUMMARY, Sample, read_results
from recipe.hdpo.evaluation.tables import text_table

RUN = re.compile(r"report-(?P<arm>.+?)(?:-lr[^-]+(?:-\d+)?-seed\d+)?")
LINE = re.compile(r"^[A-Za-z ]+: ?(\d+)\*(\d+)=", re.MULTILINE)
# Groups of animals: those of the base model's training, and the others without legs and with some.
KNOWN, NONE, SOME = "known", "new, no legs", "new, with legs"
HEAD = (
    *("arm", "runs", "known: true", "known: of a new animal", "new, no legs: true", "new, with legs: true"),
    *("leaves an animal out", "of the right responses"),
)


@functools.cache
def legs() -> dict[str, int]:
    """Legs of each animal that problems are made of."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    return dict(ANIMALS)


def animals(problem: str) -> list[tuple[str, int]]:
    """The animals of a problem and how many there are, in its order."""
    names = "|".join(map(re.escape, sorted(legs(), key=len, reverse=True)))
    return [(name, int(count)) for count, name in re.findall(rf"(\d+) ({names})s?\b", problem)]


def written(problem: str, response: str) -> list[tuple[str, int]] | None:
    """Each animal with the number of legs that a response writes for it; None where the lines do not fit."""
    asked, lines = animals(problem), LINE.findall(response)
    if [count for _, count in asked] != [int(count) for count, _ in lines]:
        return None
    return [(name, int(number)) for (name, _), (_, number) in zip(asked, lines, strict=True)]


def group(animal: str) -> str:
    """:data:`KNOWN`, :data:`NONE` or :data:`SOME`."""
    number = legs()[animal]
    return KNOWN if number in USUAL_LEGS else SOME if number else NONE


def count(samples: Iterable[Sample]) -> dict[str, Any]:
    """Of the responses to problems with animals: how many there are of each kind, and their lines.

    Returns:
        ``{"responses": {"all", "right", "unread", "shorter", "shorter_right"}, "lines": {group: {"lines", "true",
        "of_a_new_animal"}}, "animals": {animal: {number: lines}}}``. ``shorter`` responses have fewer lines than there
        are animals; ``unread`` ones do not fit (:func:`written`); ``of_a_new_animal`` counts numbers that only animals
        outside :data:`USUAL_LEGS` have.
    """
    unusual = set(legs().values()) - USUAL_LEGS
    responses, lines = Counter[str](), {name: Counter[str]() for name in (KNOWN, NONE, SOME)}
    numbers: dict[str, Counter[int]] = defaultdict(Counter)
    for sample in samples:
        problem = sample.prompt[-1]["content"]
        if sample.sample == GREEDY or not animals(problem):
            continue
        found = written(problem, sample.response)
        right, shorter = int(sample.score), int(len(LINE.findall(sample.response)) < len(animals(problem)))
        kinds = {"right": right, "unread": int(found is None), "shorter": shorter, "shorter_right": shorter * right}
        responses.update(all=1, **kinds)
        for animal, number in found or ():
            numbers[animal][number] += 1
            lines[group(animal)].update(
                lines=1, true=int(number == legs()[animal]), of_a_new_animal=int(number in unusual)
            )
    by_animal = {animal: dict(numbers[animal].most_common()) for animal in sorted(numbers)}
    by_group = {name: dict(own) for name, own in lines.items()}
    return {"responses": dict(responses), "lines": by_group, "animals": by_animal}


def read_arms(study: Path) -> dict[str, dict[str, Any]]:
    """:func:`count` over the reported runs of each arm, with how many runs there are.

    Raises:
        ValueError: no run has been evaluated there, or a result folder is broken.
    """
    folders: dict[str, list[Path]] = defaultdict(list)
    for folder in sorted(path.parent for path in study.glob(f"report-*/eval/{SUMMARY}")):
        if match := RUN.fullmatch(folder.parent.name):
            folders[match["arm"]].append(folder)
    if not folders:
        raise ValueError(f"no evaluated run (report-*/eval) in {study}: give the folder that `make study` names first")
    return {
        arm: {"runs": len(own)} | count(sample for folder in own for sample in read_results(folder).samples)
        for arm, own in folders.items()
    }


def cells(arm: str, found: dict[str, Any]) -> list[str]:
    """An arm's row, as :data:`HEAD` names it."""

    def share(of: dict[str, int], what: str, whole: str) -> str:
        return f"{of[what] / of[whole]:.2f}" if of.get(whole) else ""

    asked = [(KNOWN, "true"), (KNOWN, "of_a_new_animal"), (NONE, "true"), (SOME, "true")]
    shares = [share(found["lines"][name], what, "lines") for name, what in asked]
    kinds = [share(found["responses"], *pair) for pair in (("shorter", "all"), ("shorter_right", "right"))]
    return [arm, str(found["runs"]), *shares, *kinds]


def main(argv: list[str] | None = None) -> int:
    """Print the table; with ``--json FILE`` write its counts too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    try:
        arms = read_arms(args.study)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text_table(list(HEAD), [cells(arm, found) for arm, found in arms.items()]))
    unread = {arm: found["responses"] for arm, found in arms.items()}
    print("\nlines not read of: " + ", ".join(f"{arm} {n['unread']} of {n['all']}" for arm, n in unread.items()))
    if args.json:
        args.json.write_text(json.dumps(arms, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
