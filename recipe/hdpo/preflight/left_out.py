"""What is not part of the figures, or spoils them: each kind counted, and its first ones named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from recipe.hdpo.data import truths
from recipe.hdpo.evaluation.graders import REWARD_FILE
from recipe.hdpo.evaluation.problems import Problem
from recipe.hdpo.preflight.rollouts import Json, Rollouts
from recipe.hdpo.preflight.sources import PLAIN, PromptSet, name_of

NAMED = 5


def left_out(
    problems: Sequence[Problem],
    duplicates: Sequence[str],
    kinds: Sequence[PromptSet],
    rollouts: dict[str, Rollouts],
    reward_file: Path,
) -> list[Json]:
    """Every kind of fault that was found.

    Args:
        problems: the sampled ones, those that do not fit among them.
        duplicates: rows that repeat another one, as ``FILE:ROW``.
        kinds: the plain prompts and those of each source.
        rollouts: by source, ``plain`` among them.
        reward_file: the recipe's own reward asks more of a ground truth than is known of another.

    Returns:
        ``{"what", "count", "of", "named": [...]}``, ``of`` being how many were looked at.
    """
    names = {problem.id: name_of(problem) for problem in problems}
    found = [_entry("rows that repeat another problem, and count once", duplicates, None)]
    for kind in kinds:
        what = "plain prompts" if kind.source == PLAIN else f"privileged prompts ({kind.source})"
        long = [f"{names[id_]}: {tokens} tokens" for id_, tokens in kind.too_long.items()]
        fitting = len(kind.problems) + len(kind.too_long)
        consequence = "its problem is left out" if kind.source == PLAIN else "as a cliff it is skipped"
        found.append(_entry(f"{what} that are too long: {consequence}", long, fitting))
        missing = [f"{names[id_]}: {reason}" for id_, reason in kind.without_text.items()]
        found.append(_entry(f"problems without a text to show ({kind.source}): skipped", missing, len(problems)))
    found.append(_faulty_truths(problems, names, own=reward_file.resolve() == REWARD_FILE))
    for source, drawn in rollouts.items():
        lost = [f"{names[s.problem_id]}, sample {s.sample}: {s.unscored}" for s in drawn.ungraded]
        total = sum(map(len, drawn.graded.values())) + len(drawn.ungraded)
        found.append(_entry(f"{source} rollouts that could not be graded: lost, in no figure", lost, total))
    return [entry for entry in found if entry["count"]]


def _faulty_truths(problems: Sequence[Problem], names: dict[str, str], *, own: bool) -> Json:
    def fault(truth: object) -> str | None:
        return truths.self_grade(truth) if own else truths.truth_fault(truth, own_reward=False)

    found = [(problem, why) for problem in problems if (why := fault(problem.ground_truth)) is not None]
    what = "ground truths that the grader cannot use: cliffs for ever"
    return _entry(what, [f"{names[p.id]}: {why}, {p.ground_truth!r:.60}" for p, why in found], len(problems))


def _entry(what: str, names: Iterable[str], of: int | None) -> Json:
    listed = list(names)
    return {"what": what, "count": len(listed), "of": of, "named": listed[:NAMED]}
