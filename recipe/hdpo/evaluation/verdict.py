"""What a comparison says, in a sentence per arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipe.hdpo.evaluation.comparison import Comparison

LEVEL = 0.05


def is_quality(metric: str) -> bool:
    """Whether more of it is better. Of lengths and truncation that cannot be said."""
    return metric == "greedy" or metric.startswith(("pass@", "maj@"))


def is_clear(difference: Mapping[str, Any]) -> bool:
    """Whether the interval of a difference excludes 0, and its p-value is below 0.05."""
    low, high = difference["low"], difference["high"]
    return low is not None and (low > 0.0 or high < 0.0) and difference["p"] < LEVEL


def outcome(difference: Mapping[str, Any]) -> str:
    """ "better", "worse", "differs" (a clear difference that is neither) or "" (none that is clear)."""
    if not is_clear(difference):
        return ""
    if not is_quality(difference["metric"]):
        return "differs"
    return "better" if difference["estimate"] > 0 else "worse"


def verdicts(comparison: Comparison) -> list[tuple[str, str]]:
    """(arm, sentence) for every arm but the baseline."""
    baseline, *others = comparison.arms
    found = []
    for arm in others:
        own = [d for d in comparison.differences if d["arm"] == arm.name and is_quality(d["metric"])]
        by_outcome = {kind: [d for d in own if outcome(d) == kind] for kind in ("better", "worse", "")}
        parts = [
            f"{word} {_named(by_outcome[kind])}"
            for kind, word in (("better", "higher"), ("worse", "lower"))
            if by_outcome[kind]
        ]
        unclear = _list([d["metric"] for d in by_outcome[""]])
        if unclear:
            parts.append(f"no clear difference in {unclear}")
        luck = "" if len(arm.runs) > 1 else " One training run: another seed may come out differently."
        found.append((arm.name, f"against {baseline.name}: {'; '.join(parts)}.{luck}"))
    return found


def _named(differences: Sequence[Mapping[str, Any]]) -> str:
    return _list([f"{d['metric']} ({d['estimate']:+.3f})" for d in differences])


def _list(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
