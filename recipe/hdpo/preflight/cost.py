"""What either schedule would cost, from the rollouts that were drawn: steps are put together of sampled problems."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recipe.hdpo.algorithm.schedule_cost import Step, ratios
from recipe.hdpo.preflight.rollouts import Json, Rollouts

STEPS = 400


def predicted_cost(plain: Rollouts, privileged: Rollouts, *, prompts: int, shown: int, seed: int) -> Json:
    """Time and tokens beside GRPO's.

    Problems are drawn with replacement into steps of ``prompts``; those with an ungraded rollout are left out. The
    ``shown`` privileged rollouts of a cliff are drawn from its own; a cliff without any (no text, too long a prompt)
    waits for nothing.

    Args:
        prompts: of a step (data.train_batch_size).
        shown: hdpo.privileged.n.

    Returns:
        ``{"prompts", "shown", "tokens": generated tokens beyond GRPO's, as a share of them, "rollouts_alone":
        {"same_step", "next_step"}, "half_the_step": {...}}``: mean step time over GRPO's, where a step is nothing but
        rollouts, and where rollouts are half of GRPO's step.
    """
    cliffs = set(plain.cliffs())
    ids = sorted(id_ for id_, samples in plain.graded.items() if len(samples) == plain.n)
    again = {id_: [s.tokens for s in privileged.graded.get(id_, [])] for id_ in ids if id_ in cliffs}
    again = {id_: tokens for id_, tokens in again.items() if tokens}
    found: Json = {"prompts": prompts, "shown": shown, "problems": len(ids)}
    if not ids:
        return found | {"tokens": None, "rollouts_alone": None, "half_the_step": None}
    longest = np.array([max(s.tokens for s in plain.graded[id_]) for id_ in ids], dtype=float)
    steps, waits = _steps(ids, longest, again, prompts, shown, seed)
    rest = float(np.mean([step.longest.max() for step in steps]))
    total = sum(sample.tokens for id_ in ids for sample in plain.graded[id_])
    more = sum(shown * float(np.mean(tokens)) for tokens in again.values())
    for name, seconds in (("rollouts_alone", 0.0), ("half_the_step", rest)):
        same, following = ratios(steps, waits, 1000.0, seconds)
        found[name] = {"same_step": float(same), "next_step": float(following)}
    return found | {"tokens": more / total if total else 0.0}


def _steps(
    ids: list[str], longest: np.ndarray, again: Mapping[str, list[int]], prompts: int, shown: int, seed: int
) -> tuple[list[Step], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    steps, waits = [], []
    for _ in range(STEPS):
        chosen = rng.integers(0, len(ids), prompts)
        reissued = np.array([ids[i] in again for i in chosen])
        steps.append(Step(longest[chosen], reissued))
        waits.append(np.array([rng.choice(again[ids[i]], shown).max() for i in chosen[reissued]], dtype=float))
    return steps, waits
