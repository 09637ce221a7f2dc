"""Graded rollouts by problem, and what is counted of them.

A rollout that could not be graded is lost, as in training: its group is no cliff, and no share counts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipe.hdpo.algorithm.cliff import is_success
from recipe.hdpo.evaluation.intervals import bootstrap_mean
from recipe.hdpo.evaluation.passk import pass_at_k, powers_of_two
from recipe.hdpo.evaluation.records import GREEDY, Results, Sample

Json = dict[str, Any]


@dataclass(frozen=True)
class Rollouts:
    """The sampled rollouts of one kind, without the greedy ones.

    Attributes:
        n: rollouts per problem, the ungraded ones too.
        success: reward from which one is correct.
        graded: by problem id, in order of their numbers; a problem may have none.
        ungraded: those that the reward function could not grade.
        privileged: whether they answer privileged prompts. Of those training keeps none that ran into the length limit.
    """

    n: int
    success: float
    graded: dict[str, list[Sample]]
    ungraded: list[Sample]
    privileged: bool = False

    @classmethod
    def of(cls, results: Results) -> Rollouts:
        """Those of a complete result folder."""
        drawn = sorted((s for s in results.samples if s.sample != GREEDY), key=lambda s: s.sample)
        graded: dict[str, list[Sample]] = {sample.problem_id: [] for sample in drawn}
        for sample in drawn:
            if not sample.unscored:
                graded[sample.problem_id].append(sample)
        settings = results.meta.settings
        ungraded = [sample for sample in drawn if sample.unscored]
        return cls(settings["n"], float(settings["success_reward"]), graded, ungraded, "source" in settings)

    def right(self, sample: Sample) -> bool:
        """Whether the reward says that a rollout is correct."""
        return is_success(sample.score, self.success)

    def solved(self, sample: Sample) -> bool:
        """Whether a rollout counts as correct: a privileged one that was cut does not, since training drops it."""
        return self.right(sample) and not (self.privileged and sample.truncated)

    def correct(self, ids: Iterable[str] | None = None) -> dict[str, list[Sample]]:
        """Correct rollouts by problem id, of the problems (or those of them that are given) that have one."""
        wanted = self.graded if ids is None else [id_ for id_ in ids if id_ in self.graded]
        found = {id_: [sample for sample in self.graded[id_] if self.solved(sample)] for id_ in wanted}
        return {id_: samples for id_, samples in found.items() if samples}

    def cliffs(self) -> list[str]:
        """Ids of the problems of which all n rollouts were graded and none is correct."""
        full = {id_: samples for id_, samples in self.graded.items() if len(samples) == self.n}
        return [id_ for id_, samples in full.items() if not any(map(self.solved, samples))]

    def counts(self, ids: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Graded and correct rollouts of the problems that have a graded one, each [P]."""
        samples = [self.graded[id_] for id_ in ids if self.graded.get(id_)]
        return np.array([len(s) for s in samples]), np.array([sum(map(self.solved, s)) for s in samples])


def cliff_shares(plain: Rollouts, seed: int) -> list[Json]:
    """Share of problems that would be cliffs at each group size k: the unbiased chance 1 - pass@k that all k fail.

    Returns:
        ``{"k", "problems", "share": {"estimate", "low", "high"}}`` for k = 1, 2, 4, ... and K. ``problems`` are those
        with k graded rollouts or more, over which the share is taken; a k without any is left out.
    """
    n_P, c_P = plain.counts(plain.graded)
    found = []
    for k in sorted({*powers_of_two(plain.n), plain.n}):
        enough_P = n_P >= k
        if enough_P.any():
            share = bootstrap_mean(1.0 - pass_at_k(n_P[enough_P], c_P[enough_P], k), seed, (0.0, 1.0))
            found.append({"k": k, "problems": int(enough_P.sum()), "share": share.as_dict()})
    return found


def solve_rates(rollouts: Rollouts, ids: Iterable[str], seed: int) -> Json:
    """Chance that k = 1, 2, 4, ... and J rollouts hold a correct one: pass@k over some problems.

    Returns:
        ``{"problems", "rollouts", "pass": {k: interval}}``; ``problems`` have a graded rollout, and each share is
        taken over those of them with k or more. Without any, ``pass`` is empty.
    """
    n_P, c_P = rollouts.counts(ids)
    passes = {}
    for k in sorted({*powers_of_two(rollouts.n), rollouts.n}):
        enough_P = n_P >= k
        if enough_P.any():
            values_P = pass_at_k(n_P[enough_P], c_P[enough_P], k)
            passes[str(k)] = bootstrap_mean(values_P, seed, (0.0, 1.0)).as_dict()
    return {"problems": len(n_P), "rollouts": int(n_P.sum()), "pass": passes}


def lengths(rollouts: Rollouts) -> Json:
    """Tokens and truncation of all graded rollouts, of the solved and of the failed ones (:func:`length_row`)."""
    samples = [sample for group in rollouts.graded.values() for sample in group]
    right = [sample for sample in samples if rollouts.right(sample)]
    failed = [sample for sample in samples if not rollouts.right(sample)]
    return {"all": length_row(samples), "solved": length_row(right), "failed": length_row(failed)}


def length_row(samples: Sequence[Sample]) -> Json:
    """``{"rollouts", "truncated", "p10", "median", "p90", "longest"}``; lengths in tokens, None without rollouts.

    ``truncated`` counts those that ran into the limit.
    """
    row: Json = {"rollouts": len(samples), "truncated": sum(sample.truncated for sample in samples)}
    tokens = [sample.tokens for sample in samples]
    names = {"p10": 0.1, "median": 0.5, "p90": 0.9, "longest": 1.0}
    return row | {name: float(np.quantile(tokens, q)) if tokens else None for name, q in names.items()}
