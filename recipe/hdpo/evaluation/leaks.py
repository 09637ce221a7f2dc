"""Signs of copying (:mod:`recipe.hdpo.algorithm.leakage`) and valid steps in correct responses, over problems.

Also of a trained model, which is shown nothing: does it speak of a reference that is not there, does it answer without
work, are its steps true?
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from recipe.hdpo.algorithm.cliff import is_success
from recipe.hdpo.algorithm.gate import FAILED, Signs
from recipe.hdpo.algorithm.leakage import LeakSigns, leak_signs
from recipe.hdpo.evaluation.intervals import bootstrap_mean
from recipe.hdpo.evaluation.problems import file_sha256
from recipe.hdpo.evaluation.records import GREEDY, SUMMARY, Results, Sample
from recipe.hdpo.evaluation.tables import number
from recipe.hdpo.evaluation.wording import counted
from recipe.hdpo.step_process import StepProcess

SIGNS = ("speaks", "copies", "workless")
# Of the phrases found, so many are named.
NAMED_PHRASES = 5


class SignReader:
    """Reads the signs of rollouts against one source's texts; every text is tokenised once.

    Args:
        tokens: token ids of a text.
        shown: privileged text by problem id; empty for a problem that has none.
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

    def table(self, correct: Mapping[str, list[Sample]], seed: int) -> dict[str, Any]:
        """The figures of some correct rollouts.

        Returns:
            ``{"problems", "rollouts", "speaks", "copies", "workless", "any", "run", "run_share", "length_share",
            "phrases"}``. The first four shares are means over problems of the share of a problem's correct rollouts,
            with intervals; ``copies`` over the problems with a privileged text, ``workless`` over those with a worked
            solution. ``run`` (tokens), ``run_share`` and ``length_share`` are medians over rollouts of such problems.
            What nothing is known of is None.
        """
        by_problem = {id_: list(map(self.signs, samples)) for id_, samples in correct.items() if id_ in self._shown}
        every = [sign for signs in by_problem.values() for sign in signs]
        of_text = [sign for id_, signs in by_problem.items() if self._shown[id_] for sign in signs]
        known: dict[str, Mapping[str, Any]] = {"copies": self._shown, "workless": self._worked}
        shares: dict[str, Any] = {}
        for name in (*SIGNS, "any"):
            values = [
                np.mean([_has(sign, name) for sign in signs])
                for id_, signs in by_problem.items()
                if known.get(name, by_problem).get(id_)
            ]
            shares[name] = bootstrap_mean(np.array(values), seed, (0.0, 1.0)).as_dict() if values else None
        lengths = [sign.length_share for sign in every if sign.length_share is not None]
        return {
            "problems": len(by_problem),
            "rollouts": len(every),
            **shares,
            "run": median(sign.run for sign in of_text) if of_text else None,
            "run_share": median(sign.run_share for sign in of_text) if of_text else None,
            "length_share": median(lengths) if lengths else None,
            "phrases": Counter(sign.phrase.lower() for sign in every if sign.phrase).most_common(NAMED_PHRASES),
        }


def _has(sign: LeakSigns, name: str) -> bool:
    return any(getattr(sign, each) for each in SIGNS) if name == "any" else bool(getattr(sign, name))


# Of summary.json's "leakage", what is printed, and how it is said.
PRINTED = {
    "speaks": "speak of a reference",
    "copies": "are one run of the solution by half or more",
    "workless": "are shorter than half of the solution",
    "valid_steps": "steps that are valid",
    "without_steps": "have no step that the check can judge",
}


# Of summary.json's "leakage": what its figures were measured with, and what of that decides each printed one.
DECIDES = "measured_with"
_TEXTS = ("solution_key", "join_texts")
DECIDING = {
    "speaks": ("phrases_sha256",),
    "copies": _TEXTS,
    "workless": _TEXTS,
    "valid_steps": ("step_check",),
    "without_steps": ("step_check",),
}


def how_measured(args: argparse.Namespace) -> dict[str, Any]:
    """What decides the figures, of evaluate's command line; a file of phrases by the digest of its bytes."""
    phrases = file_sha256(args.phrases) if args.phrases else None
    return {name: getattr(args, name) for name in (*_TEXTS, "step_check")} | {"phrases_sha256": phrases}


def measured_otherwise(name: str, runs: Iterable[Mapping[str, Any]]) -> str | None:
    """Why a figure of several results is no comparison, where they were measured in different ways; else None.

    Args:
        name: of :data:`PRINTED`.
        runs: their "leakage"; those of an earlier version say nothing of how they were measured.
    """
    told = [run[DECIDES] for run in runs if DECIDES in run]
    for key in DECIDING[name]:
        values = sorted({str(each.get(key)) for each in told})
        if len(values) > 1:
            return f"measured with {key} = {' and '.join(values)}: evaluate again with one of them"
    return None


def correct_samples(results: Results) -> dict[str, list[Sample]]:
    """The correct drawn samples, by problem id; the greedy ones are left out."""
    found: dict[str, list[Sample]] = defaultdict(list)
    success = results.meta.settings["success_reward"]
    for sample in results.samples:
        if sample.sample != GREEDY and is_success(sample.score, success):
            found[sample.problem_id].append(sample)
    return dict(found)


def step_figures(correct: Mapping[str, Sequence[Sample]], spec: str, seconds: float, seed: int) -> dict[str, Any]:
    """What a check of steps says of correct samples.

    Args:
        spec: names the check, as :func:`recipe.hdpo.step_check.load_step_check` reads it.
        seconds: that one call may take.

    Returns:
        ``{"step_check", "step_check_errors", "valid_steps", "without_steps"}``: the mean share of valid steps of the
        responses that have some, over problems, and the share of a problem's responses that have none, with intervals.
        None where nothing is known. Responses on which the check failed are counted, and in neither.
    """
    flat = [(id_, sample.response) for id_, samples in correct.items() for sample in samples]

    async def run() -> list[Signs]:
        process = StepProcess(spec, seconds)
        try:
            nothing = Signs(False, None, None, None)
            return [await process.added_to(nothing, text) for _, text in flat]
        finally:
            process.stop()

    by_problem: dict[str, list[float | None]] = defaultdict(list)
    judged = asyncio.run(run()) if flat else []
    for (id_, _), signs in zip(flat, judged, strict=True):
        if signs.step_check != FAILED:
            by_problem[id_].append(signs.steps)
    shares = [[share for share in row if share is not None] for row in by_problem.values()]
    valid = [np.mean(row) for row in shares if row]
    without = [1.0 - len(some) / len(row) for some, row in zip(shares, by_problem.values(), strict=True)]
    return {
        "step_check": spec,
        "step_check_errors": sum(signs.step_check == FAILED for signs in judged),
        "valid_steps": bootstrap_mean(np.array(valid), seed, (0.0, 1.0)).as_dict() if valid else None,
        "without_steps": bootstrap_mean(np.array(without), seed, (0.0, 1.0)).as_dict() if without else None,
    }


def leakage_line(leakage: Mapping[str, Any]) -> str:
    """The figures in one line of text."""
    known = [f"{said} {number(leakage[name], name)}" for name, said in PRINTED.items() if leakage.get(name)]
    responses, problems = counted(leakage["rollouts"], "correct response"), counted(leakage["problems"], "problem")
    return f"Of {responses} to {problems}: {'; '.join(known)}."


def recorded_leakage(results: Results) -> dict[str, Any] | None:
    """What ``evaluate`` wrote of a result folder; None in one of before it did."""
    path = results.folder / SUMMARY
    found = json.loads(path.read_text(encoding="utf-8")).get("leakage") if path.exists() else None
    return found if isinstance(found, dict) and found.get("rollouts") else None
