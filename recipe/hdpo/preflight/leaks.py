"""Signs of copying in correct privileged rollouts, beside those in correct plain ones of the same problems' texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from recipe.hdpo.algorithm.leakage import excess
from recipe.hdpo.evaluation.leaks import SIGNS, SignReader
from recipe.hdpo.preflight.rollouts import Json, Rollouts


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
