"""One cliff as the page shows it, ready for JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from recipe.hdpo.algorithm.leakage import shared_run
from recipe.hdpo.cliffs.files import Line
from recipe.hdpo.tracking.token_text import short

# Failed rollouts that are shown of a cliff, and the longest text of anything.
FAILED, CHARS = 4, 6000
# Tokens of a kept trajectory that are shown one by one, at most.
TOKENS = 4000


def cliff_entry(
    step: int,
    group: Line,
    rollouts: Sequence[Line],
    kept: Mapping[str, Line],
    visits: Sequence[Sequence[Any]],
    pattern: re.Pattern[str],
    tokens: int = TOKENS,
) -> dict[str, Any]:
    """A cliff, joined from its parts.

    Args:
        step: in which its privileged rollouts were made, or its plain ones where it has none.
        group: its line of ``hdpo_groups``.
        rollouts: verl's lines of its plain rollouts; none where verl's file is not there.
        kept: kept trajectories by key.
        visits: of its problem, over all steps.
        pattern: finds phrases that speak of a reference.
        tokens: of each kept trajectory so many are shown; the rest is counted.
    """
    told = group["privileged"]
    texts = [rollout["output"] for rollout in rollouts]
    # Those with the highest rewards: they were nearest. Of equal ones the first.
    best = sorted(range(len(rollouts)), key=lambda i: -rollouts[i]["score"])[:FAILED]
    return {
        "uid": group["uid"],
        "problem": group["problem"],
        "step": step,
        # Of a re-issued cliff, the group that failed.
        "cliff_uid": group["cliff_uid"],
        # The problem alone, and all that the model reads.
        "asked": told.get("asked", ""),
        "question": short(rollouts[0]["input"] if rollouts else told.get("plain_prompt", ""), CHARS),
        "truth": short(str(rollouts[0]["gts"]), CHARS) if rollouts else None,
        "rewards": [_number(rollout["score"]) for rollout in rollouts],
        "failed": [[_number(rollouts[i]["score"]), short(texts[i], CHARS)] for i in sorted(best)],
        "source": told.get("source"),
        "prompt": [[kind, short(text, CHARS)] for kind, text in told.get("prompt", [])],
        "skipped": group["skipped"],
        "attempts": [_attempt(each, kept.get(each["key"]), told, pattern, tokens) for each in group["attempts"]],
        "visits": [list(visit) for visit in visits],
    }


def _attempt(told: Line, kept: Line | None, shown: Line, pattern: re.Pattern[str], most: int) -> dict[str, Any]:
    entry = {
        "reward": _number(told["reward"]),
        "kept": told["kept"],
        "why": told["reason_not_kept"],
        "cut": told["truncated"],
        "n": told["tokens"],
    }
    tokens = (kept or {}).get("hdpo_tokens")
    if tokens:
        return entry | _tokens(tokens, shown.get("shown_ids", []), pattern, most)
    text = (kept or {}).get("hdpo_responses", told.get("text"))
    if text is not None:
        text = short(text, CHARS)
        entry |= {"text": text, "speaks": [list(m.span()) for m in pattern.finditer(text)]}
    return entry


def _tokens(tokens: Line, shown_ids: Sequence[int], pattern: re.Pattern[str], most: int) -> dict[str, Any]:
    """The first tokens with their marks; what lies beyond ``most`` is left out and counted."""
    texts, at = tokens["texts"][:most], [i for i in tokens["at"] if i < most]
    count = len(at)
    names = tokens["names"]
    tops = tokens["teacher_top"][:count] + tokens["student_top"][:count]
    order = list(dict.fromkeys(str(int(id_)) for row in tops for id_, _, _ in row))
    place = {id_: i for i, id_ in enumerate(order)}
    divergence, whole = tokens["divergence"], len(tokens["divergence"])
    return {
        "tokens": texts,
        "beyond": len(tokens["texts"]) - len(texts),
        "at": None if at == list(range(len(texts))) else at,
        "d": [round(value, 4) for value in divergence[:count]],
        "mean": round(sum(divergence) / whole, 4) if whole else None,
        "q": [round(value, 3) for value in tokens["student"][:count]],
        "mass": [round(value, 3) for value in tokens["student_mass"][:count]],
        "names": [names[id_] for id_ in order],
        "tt": [_tops(row, place) for row in tokens["teacher_top"][:count]],
        "st": [_tops(row, place) for row in tokens["student_top"][:count]],
        "run": list(shared_run(tokens["ids"], shown_ids)),
        "speaks": _token_spans(texts, pattern),
    }


def _tops(row: Sequence[Sequence[float]], place: Mapping[str, int]) -> list[float]:
    """Flat: place among the names, p, q of each."""
    return [x for id_, p, q in row for x in (place[str(int(id_))], round(p, 3), round(q, 3))]


def _token_spans(texts: Sequence[str], pattern: re.Pattern[str]) -> list[list[int]]:
    """Which tokens the phrases that are found lie in: [first, one beyond the last]."""
    starts, begin = [], 0
    for text in texts:
        starts.append(begin)
        begin += len(text)
    found = []
    for match in pattern.finditer("".join(texts)):
        touched = [
            i for i, s in enumerate(starts) if s < match.end() and s + len(texts[i]) > match.start() and texts[i]
        ]
        found.append([touched[0], touched[-1] + 1])
    return found


def _number(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
