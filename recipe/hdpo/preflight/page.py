"""``preflight.html``: one self-contained page; its form is ``page.html``, and here stands what fills it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recipe.hdpo.algorithm.prompt_marks import marked
from recipe.hdpo.evaluation.problems import Problem
from recipe.hdpo.evaluation.records import Sample
from recipe.hdpo.evaluation.templates import page_templates
from recipe.hdpo.preflight.advice import command
from recipe.hdpo.preflight.drawing import Drawn
from recipe.hdpo.preflight.figures import cliffs_svg, difficulty_svg, lengths_svg
from recipe.hdpo.preflight.rollouts import Json, Rollouts
from recipe.hdpo.preflight.sources import PLAIN, PromptSet, name_of
from recipe.hdpo.preflight.verdict import SAYINGS, Verdict, percent
from recipe.hdpo.tracking.token_text import short

TEMPLATE = "page.html"
# Cliffs to read, and the longest text of each that the page holds.
CLIFFS = 6
MAX_CHARS = 6000

_ENVIRONMENT = page_templates(Path(__file__).parent)
_ENVIRONMENT.filters["percent"] = percent


def html_page(numbers: Json, verdict: Verdict, drawn: Drawn, settings: Json) -> str:
    """The page as HTML text; whatever comes from data, model or command line is escaped.

    Args:
        numbers: of :func:`~recipe.hdpo.preflight.numbers.compute`.
        drawn: rollouts and prompts, for the texts.
        settings: name -> value, how all of it was made.
    """
    sampled = {source: each for source, each in numbers["sources"].items() if "all" in each}
    source = verdict.source or next(iter(sampled), None)
    kind = next((each for each in drawn.sources if each.source == source), None)
    return _ENVIRONMENT.get_template(TEMPLATE).render(
        numbers=numbers,
        verdict=verdict,
        command=command(verdict.flags),
        sampled=sampled,
        sayings=SAYINGS,
        cliffs_svg=cliffs_svg(numbers["cliffs"]["by_k"]) if numbers["cliffs"]["by_k"] else "",
        difficulty_svg=difficulty_svg(
            numbers["plain"]["difficulty"], {name: each["difficulty"] for name, each in sampled.items()}
        ),
        lengths_svg=lengths_svg(numbers["lengths"], numbers["max_tokens"]),
        prompt=rendered_prompt(drawn, kind, numbers["cliffs"]["ids"]) if kind and kind.problems else None,
        cliffs=cliffs_to_read(drawn, kind, numbers["cliffs"]["ids"], settings["seed"]),
        settings=settings,
    )


def rendered_prompt(drawn: Drawn, kind: PromptSet, cliffs: list[str]) -> Json:
    """One privileged prompt as the model reads it, a cliff's if there is one: ``{"source", "name", "segments"}``."""
    problem = next((each for each in kind.problems if each.id in set(cliffs)), kind.problems[0])
    plain, privileged = (drawn.rendered(each.prompt_ids[problem.id]) for each in (drawn.plain, kind))
    return {
        "source": kind.source,
        "name": name_of(problem),
        "segments": marked(plain, privileged, kind.shown[problem.id]),
    }


def cliffs_to_read(drawn: Drawn, kind: PromptSet | None, cliffs: list[str], seed: int) -> list[Json]:
    """Some cliffs, chosen by the seed: problem, a failed rollout, and a privileged one, a right one if there is any."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(cliffs))[:CLIFFS])
    plain = Rollouts.of(drawn.results[PLAIN])
    shown = Rollouts.of(drawn.results[kind.source]) if kind and kind.source in drawn.results else None
    problems = {problem.id: problem for problem in drawn.plain.problems}
    found = []
    for id_ in (cliffs[i] for i in chosen):
        entry = _problem(problems[id_]) | {"failed": _response(plain.graded[id_][0], plain)}
        samples = shown.graded.get(id_, []) if shown else []
        entry["text"] = _short(kind.shown[id_]) if kind and id_ in kind.shown else None
        entry["privileged"] = None
        if shown and samples:
            entry["privileged"] = _response(next(filter(shown.solved, samples), samples[0]), shown)
            entry["right"] = f"{sum(map(shown.solved, samples))} of {len(samples)}"
        found.append(entry)
    return found


def _problem(problem: Problem) -> Json:
    text = "\n\n".join(message["content"] for message in problem.prompt if message["role"] != "system")
    truth = _short(str(problem.ground_truth))
    return {"name": name_of(problem), "difficulty": problem.difficulty, "problem": _short(text), "truth": truth}


def _response(sample: Sample, rollouts: Rollouts) -> Json:
    return {
        "text": _short(sample.response),
        "tokens": sample.tokens,
        "truncated": sample.truncated,
        "right": rollouts.right(sample),
        "score": sample.score,
    }


def _short(text: str) -> str:
    return short(text, MAX_CHARS)
