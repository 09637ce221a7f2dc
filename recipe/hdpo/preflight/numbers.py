"""All figures of a preflight, ready for ``preflight.json``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from recipe.hdpo import math_process
from recipe.hdpo.algorithm.cliff import is_success
from recipe.hdpo.algorithm.leakage import read_phrases, reference_pattern
from recipe.hdpo.evaluation.leaks import SignReader
from recipe.hdpo.evaluation.problems import ProblemSet
from recipe.hdpo.evaluation.records import GREEDY, Results
from recipe.hdpo.evaluation.summary import natural
from recipe.hdpo.preflight.cost import predicted_cost
from recipe.hdpo.preflight.drawing import Drawn
from recipe.hdpo.preflight.ladder import ladder_figures
from recipe.hdpo.preflight.leaks import leak_figures
from recipe.hdpo.preflight.left_out import left_out
from recipe.hdpo.preflight.rollouts import Json, Rollouts, cliff_shares, length_row, lengths, solve_rates
from recipe.hdpo.preflight.sources import PLAIN, PromptSet, worked_solutions

# Of the rollouts that J draws: where a smaller group solves this share of what all J do, it is advised.
ENOUGH = 0.9


def compute(args: argparse.Namespace, problems: ProblemSet, drawn: Drawn) -> Json:
    """Everything that the page shows but its texts and the verdict.

    Returns:
        ``{"problems", "K", "J", "max_tokens", "room", "cliffs", "plain", "sources", "lengths", "ladder", "left_out"}``;
        every share says over how many problems it is taken.
    """
    rollouts = {source: Rollouts.of(results) for source, results in drawn.results.items()}
    plain, cliffs = rollouts[PLAIN], rollouts[PLAIN].cliffs()
    levels = _levels(drawn.results[PLAIN])
    pattern = reference_pattern(read_phrases(args.phrases) if args.phrases else ())
    worked = worked_solutions(problems.problems, args.solution_key, join=args.join_texts)
    by_level = {level: solve_rates(plain, ids, args.seed) for level, ids in levels.items()}
    found: Json = {
        "problems": len(plain.graded),
        "K": args.n,
        "J": args.privileged_n,
        "max_tokens": args.max_tokens,
        "room": drawn.room,
        "cliffs": {
            "by_k": cliff_shares(plain, args.seed),
            "ids": cliffs,
            "failed": length_row([sample for id_ in cliffs for sample in plain.graded[id_]]),
            "by_difficulty": {level: _cliffs_of(plain, cliffs, ids) for level, ids in levels.items()},
        },
        "plain": {
            "all": solve_rates(plain, plain.graded, args.seed),
            "difficulty": by_level,
            "greedy": _greedy(drawn.results[PLAIN]),
            "longest_prompt": _longest(drawn.plain),
        },
        "sources": {},
        "lengths": {source: lengths(each) for source, each in rollouts.items()},
    }
    for kind in drawn.sources:
        entry: Json = {"problems": len(kind.problems), "without_text": len(kind.without_text)}
        entry |= {"too_long": len(kind.too_long), "longest_prompt": _longest(kind)}
        if kind.source in rollouts:
            reader = SignReader(drawn.tokens, kind.shown, worked, pattern)
            entry |= _of_source(args, plain, rollouts[kind.source], cliffs, levels, reader)
        found["sources"][kind.source] = entry
    found["ladder"] = ladder_figures(rollouts, list(found["sources"]), cliffs, args.seed)
    kinds = [drawn.plain, *drawn.sources]
    found["left_out"] = left_out(problems.problems, problems.duplicates, kinds, rollouts, drawn.reward_file)
    # The grader's processes have nothing to do any more.
    math_process.stop()
    return found


def _of_source(
    args: argparse.Namespace,
    plain: Rollouts,
    shown: Rollouts,
    cliffs: list[str],
    levels: Mapping[str, list[str]],
    reader: SignReader,
) -> Json:
    on_cliffs = solve_rates(shown, cliffs, args.seed)
    needed = advised_n(on_cliffs, args.privileged_n)
    return {
        "all": solve_rates(shown, shown.graded, args.seed),
        "on_cliffs": on_cliffs,
        "difficulty": {level: solve_rates(shown, ids, args.seed) for level, ids in levels.items()},
        "leaks": leak_figures(reader, plain, shown, cliffs, args.seed),
        "n": needed,
        "cost": predicted_cost(plain, shown, prompts=args.train_batch_size, shown=needed, seed=args.seed),
    }


def advised_n(on_cliffs: Json, most: int) -> int:
    """The smallest measured group of privileged rollouts that solves :data:`ENOUGH` of the cliffs that ``most`` do."""
    rates = {int(k): interval["estimate"] for k, interval in on_cliffs["pass"].items()}
    if not rates.get(most):
        return 1
    return min(k for k, rate in rates.items() if rate >= ENOUGH * rates[most])


def _levels(results: Results) -> dict[str, list[str]]:
    """Problem ids by difficulty, in natural order."""
    found: dict[str, dict[str, None]] = {}
    for sample in results.samples:
        found.setdefault(sample.difficulty, {})[sample.problem_id] = None
    return {level: list(found[level]) for level in sorted(found, key=natural)}


def _cliffs_of(plain: Rollouts, cliffs: list[str], ids: list[str]) -> Json:
    full = [id_ for id_ in ids if len(plain.graded[id_]) == plain.n]
    return {"problems": len(full), "cliffs": len(set(cliffs) & set(full))}


def _greedy(results: Results) -> Json:
    greedy = [s for s in results.samples if s.sample == GREEDY and not s.unscored]
    success = results.meta.settings["success_reward"]
    return {"problems": len(greedy), "solved": sum(is_success(sample.score, success) for sample in greedy)}


def _longest(kind: PromptSet) -> int | None:
    return max(map(len, kind.prompt_ids.values()), default=None)
