"""What a ladder of the measured sources would solve, with one rollout for each rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recipe.hdpo.algorithm.solution_prefix import prefix_share
from recipe.hdpo.evaluation.intervals import bootstrap_mean
from recipe.hdpo.preflight.rollouts import Json, Rollouts


def ladder_figures(rollouts: Mapping[str, Rollouts], sources: Sequence[str], cliffs: Sequence[str], seed: int) -> Json:
    """The chance that a cliff is solved on each rung, the least telling source first.

    One rollout of source s solves cliff i with chance p_is, estimated by the share of its graded rollouts that are
    correct; a cliff without one of a source skips that rung. On rung r it is solved with chance
    p_ir * (1 - p_i1) ... (1 - p_i,r-1), whose estimate is unbiased, since sources are sampled apart.

    Returns:
        ``{"sources", "problems", "solved": interval, "by_rung": [share, ...]}``, shares of the cliffs that have a
        rollout of some source; empty where fewer than two sources ever solve a cliff.
    """
    rates = {source: _rates(rollouts[source], cliffs) for source in sources if source in rollouts}
    rungs = sorted((source for source, rate in rates.items() if any(rate.values())), key=_telling)
    seen = [id_ for id_ in cliffs if any(id_ in rates[source] for source in rungs)]
    if len(rungs) < 2:
        return {}
    open_P, by_rung = np.ones(len(seen)), []
    for source in rungs:
        solved_P = open_P * np.array([rates[source].get(id_, 0.0) for id_ in seen])
        by_rung.append(float(solved_P.mean()))
        open_P = open_P - solved_P
    solved = bootstrap_mean(1.0 - open_P, seed, (0.0, 1.0))
    return {"sources": rungs, "problems": len(seen), "solved": solved.as_dict(), "by_rung": by_rung}


def _rates(rollouts: Rollouts, cliffs: Sequence[str]) -> dict[str, float]:
    groups = {id_: rollouts.graded[id_] for id_ in cliffs if rollouts.graded.get(id_)}
    return {id_: sum(map(rollouts.solved, group)) / len(group) for id_, group in groups.items()}


def _telling(source: str) -> tuple[int, float]:
    """The answer, then prefixes, the shorter one first, then the solution."""
    share = prefix_share(source)
    return (1, share) if share is not None else (0 if source == "answer" else 2, 0.0)
