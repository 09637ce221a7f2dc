"""Signs of copying in correct privileged rollouts, beside those in correct plain ones of the same problems' texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from statistics import median

import numpy as np

from recipe.hdpo.algorithm.leakage import LeakSigns, excess, leak_signs
from recipe.hdpo.evaluation.intervals import bootstrap_mean
from recipe.hdpo.evaluation.records import Sample
from recipe.hdpo.preflight.rollouts import Json, Rollouts

SIGNS = ("speaks", "copies", "workless")
# Of the phrases found, so many are named.
NAMED_PHRASES = 5


class SignReader:
    """Reads the signs of rollouts against one source's texts; every text is tokenised once.

    Args:
        tokens: token ids of a text.
        shown: privileged text by problem id.
        worked: worked solution by problem id, of the problems that have one.
        pattern: :func:`~recipe.hdpo.algorithm.leakage.reference_pattern`.
    """

    def __init__(
        self,
        tokens: Callable[[str], list[int]],
        shown: Mapping[str, str],
        worked: Mapping[str, str],
        pattern: re.Pattern[str],
    ):
        self._tokens, self._pattern = tokens, pattern
        self._shown = {id_: tokens(text) for id_, text in shown.items()}
        self._worked = {id_: tokens(text) for id_, text in worked.items()}

    def signs(self, sample: Sample) -> LeakSigns:
        """Those of one rollout."""
        id_ = sample.problem_id
        response = self._tokens(sample.response)
        return leak_signs(sample.response, response, self._shown[id_], self._worked.get(id_), self._pattern)

    def table(self, correct: Mapping[str, list[Sample]], seed: int) -> Json:
        """The figures of some correct rollouts.

        Returns:
            ``{"problems", "rollouts", "speaks", "copies", "workless", "any", "run", "run_share", "length_share",
            "phrases"}``. The first four shares are means over problems of the share of a problem's correct rollouts,
            with intervals; ``workless`` over the problems with a worked solution. ``run`` (tokens), ``run_share`` and
            ``length_share`` are medians over rollouts. What nothing is known of is None.
        """
        by_problem = {id_: list(map(self.signs, samples)) for id_, samples in correct.items() if id_ in self._shown}
        every = [sign for signs in by_problem.values() for sign in signs]
        shares: Json = {}
        for name in (*SIGNS, "any"):
            values = [
                np.mean([_has(sign, name) for sign in signs])
                for id_, signs in by_problem.items()
                if name != "workless" or id_ in self._worked
            ]
            shares[name] = bootstrap_mean(np.array(values), seed, (0.0, 1.0)).as_dict() if values else None
        lengths = [sign.length_share for sign in every if sign.length_share is not None]
        return {
            "problems": len(by_problem),
            "rollouts": len(every),
            **shares,
            "run": median(sign.run for sign in every) if every else None,
            "run_share": median(sign.run_share for sign in every) if every else None,
            "length_share": median(lengths) if lengths else None,
            "phrases": Counter(sign.phrase.lower() for sign in every if sign.phrase).most_common(NAMED_PHRASES),
        }


def leak_figures(
    reader: SignReader, plain: Rollouts, privileged: Rollouts, cliffs: Iterable[str], seed: int
) -> dict[str, Json]:
    """:meth:`SignReader.table` of ``privileged`` rollouts, of those ``on_cliffs``, and of ``plain`` ones."""
    return {
        "privileged": reader.table(privileged.correct(), seed),
        "on_cliffs": reader.table(privileged.correct(cliffs), seed),
        "plain": reader.table(plain.correct(), seed),
    }


def largest_excess(figures: Mapping[str, Json]) -> tuple[float, str] | None:
    """The sign that right rollouts of cliffs, which is what training keeps, show most beyond plain right ones, as
    (share, sign); None where no cliff was solved."""
    found = []
    for sign in SIGNS:
        shown, plain = figures["on_cliffs"][sign], figures["plain"][sign]
        if shown is not None:
            found.append((excess(shown["estimate"], plain and plain["estimate"]), sign))
    return max(found, default=None)


def _has(sign: LeakSigns, name: str) -> bool:
    return any(getattr(sign, each) for each in SIGNS) if name == "any" else bool(getattr(sign, name))
