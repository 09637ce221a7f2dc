"""The plain verdict on the figures, and its thresholds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from recipe.hdpo.algorithm.leakage import COPIED_SHARE, WORKLESS_SHARE
from recipe.hdpo.evaluation.leaks import SIGNS
from recipe.hdpo.preflight.advice import flags_for
from recipe.hdpo.preflight.leaks import largest_excess
from recipe.hdpo.preflight.rollouts import Json

# With fewer cliffs than this share of prompts HDPO is GRPO.
FEW_CLIFFS = 0.05
# A teacher that solves fewer of the cliffs than this share cannot follow the text.
FOLLOWS = 0.10
# From so few sampled cliffs nothing follows.
TOO_FEW_TO_TELL = 10
# From this share on, something else is wrong: nearly every prompt is a cliff, or a cliff's rollouts were cut.
NEARLY_ALL, OFTEN_CUT = 0.95, 0.50
# Beyond this share of copies, what solves the cliffs is mostly copied.
MOSTLY = 0.50

SAYINGS = {
    "speaks": "speak of a reference",
    "copies": f"repeat {COPIED_SHARE:.0%} or more of their length in one run".replace("%", " %"),
    "workless": f"are shorter than {WORKLESS_SHARE:.0%} of the worked solution".replace("%", " %"),
}


@dataclass
class Verdict:
    """What to do.

    Attributes:
        headline: in one line.
        tone: "yes", "no", or "unsure".
        sentences: the figures that say so, and what to look at.
        source: the advised source; None without one.
        flags: (override, why) of the settings that follow.
    """

    headline: str
    tone: str
    sentences: list[str] = field(default_factory=list)
    source: str | None = None
    flags: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> Json:
        """JSON-ready."""
        return asdict(self)


def judge(args: argparse.Namespace, numbers: Json) -> Verdict:
    """The verdict.

    Args:
        args: of the command line, for the settings that follow.
        numbers: of :func:`~recipe.hdpo.preflight.numbers.compute`.
    """
    source = best_source(numbers)
    headline, tone = _headline(numbers, source)
    found = Verdict(headline, tone, source=source)
    found.sentences = list(_sentences(numbers, source))
    if tone != "no" and source is not None and len(numbers["cliffs"]["ids"]) >= TOO_FEW_TO_TELL:
        found.flags = list(flags_for(args, numbers, source))
    return found


def best_source(numbers: Json) -> str | None:
    """The source with the largest usable share; of equal ones the first. None where no source met a cliff."""
    usable = {source: share for source in numbers["sources"] if (share := usable_share(numbers, source)) is not None}
    return max(usable, key=lambda source: usable[source], default=None)


def usable_share(numbers: Json, source: str) -> float | None:
    """Share of a source's privileged rollouts of cliffs that are correct, less the share of those that one sign of
    copying marks beyond what plain correct rollouts show of it."""
    entry = numbers["sources"][source]
    rate = _rate(entry)
    if rate is None:
        return None
    return rate["estimate"] * (1.0 - _copied(numbers, source))


def percent(interval: Json | None) -> str:
    """``31 % [25, 38]``; ``?`` where nothing is known."""
    if interval is None:
        return "?"
    if interval["low"] is None:
        return f"{100 * interval['estimate']:.0f} %"
    return f"{100 * interval['estimate']:.0f} % [{100 * interval['low']:.0f}, {100 * interval['high']:.0f}]"


def _headline(numbers: Json, source: str | None) -> tuple[str, str]:
    share, cliffs = _cliff_share(numbers), len(numbers["cliffs"]["ids"])
    if share is None:
        return "Nothing can be said: no problem has a full group of graded rollouts.", "unsure"
    if share["high"] < FEW_CLIFFS:
        return "Leave HDPO: few prompts are cliffs, and without cliffs it is GRPO.", "no"
    if cliffs == 0:
        return "Too few cliffs to tell (none): sample more problems (--limit).", "unsure"
    if source is None:
        return "HDPO has nothing to show: no cliff has a privileged text that fits.", "no"
    rate, usable = _rate(numbers["sources"][source]), usable_share(numbers, source)
    assert rate is not None and usable is not None
    if cliffs < TOO_FEW_TO_TELL:
        return f"Too few cliffs to tell ({cliffs}): sample more problems (--limit).", "unsure"
    rates = {name: found for name, entry in numbers["sources"].items() if (found := _rate(entry)) is not None}
    if all(found["high"] < FOLLOWS for found in rates.values()):
        return "Leave HDPO: with the text before it the model still fails, so there is nothing to distill.", "no"
    followed = [name for name, found in rates.items() if found["estimate"] >= FOLLOWS]
    if followed and usable < FOLLOWS and all(_copied(numbers, name) > MOSTLY for name in followed):
        return "Leave HDPO: what solves the cliffs is mostly copied.", "no"
    if share["low"] < FEW_CLIFFS or rate["low"] < FOLLOWS or usable < FOLLOWS:
        return f"HDPO may help, with source {source}: the figures are too small, or too few, to be sure.", "unsure"
    return f"HDPO fits: try it, with source {source}.", "yes"


def _sentences(numbers: Json, source: str | None) -> Iterator[str]:
    share = _cliff_share(numbers)
    if share is None:
        return
    yield f"{percent(share)} of prompts are cliffs at K = {numbers['K']}."
    for name, entry in numbers["sources"].items():
        rate = _rate(entry)
        if rate is not None:
            yield f"With the {_called(name)}, {percent(rate)} of the cliffs' rollouts are right; {_copying(entry)}."
    if ladder := numbers["ladder"]:
        parts = ", ".join(
            f"{100 * part:.0f} % with the {_called(name)}"
            for name, part in zip(ladder["sources"], ladder["by_rung"], strict=True)
        )
        yield (
            f"A ladder, one rollout for each source until one is right, would solve {percent(ladder['solved'])} of the "
            f"cliffs ({parts}): hdpo.privileged.source=[{','.join(ladder['sources'])}] "
            f"hdpo.privileged.n={len(ladder['sources'])}."
        )
    if share["estimate"] > NEARLY_ALL:
        yield "Nearly every prompt is a cliff: look at the reward, the answer format and the prompt first."
    failed = numbers["cliffs"]["failed"]
    if failed["rollouts"] and failed["truncated"] / failed["rollouts"] >= OFTEN_CUT:
        yield (
            f"{100 * failed['truncated'] / failed['rollouts']:.0f} % of the rollouts of cliffs ran into "
            f"{numbers['max_tokens']} tokens: longer responses may solve them without HDPO."
        )
    cut = numbers["lengths"][source]["solved"] if source in numbers["lengths"] else None
    if cut and cut["truncated"]:
        yield (
            f"{cut['truncated']} of {cut['rollouts']} right privileged rollouts were cut: training drops such, and "
            "above they do not count."
        )


def _copying(entry: Json) -> str:
    """What the largest sign says of the right rollouts of cliffs, against plain rollouts."""
    figures, worst = entry["leaks"], largest_excess(entry["leaks"])
    if worst is None:
        return "nothing is known of copying"
    if worst[0] == 0.0:
        return _no_excess(figures)
    shown, plain = figures["on_cliffs"][worst[1]], figures["plain"][worst[1]]
    beside = "no plain rollout is right to compare with" if plain is None else f"of plain right ones {percent(plain)}"
    return f"{percent(shown)} of those {SAYINGS[worst[1]]} ({beside})"


def _no_excess(figures: Json) -> str:
    """What is said where no sign is more frequent than in plain rollouts."""
    shown = figures["on_cliffs"]
    sign = max((sign for sign in SIGNS if shown[sign]), key=lambda sign: shown[sign]["estimate"])
    if shown[sign]["estimate"] == 0.0:
        return "none of those shows a sign of copying"
    plain = percent(figures["plain"][sign])
    return (
        f"{percent(shown[sign])} of those {SAYINGS[sign]}, but so do {plain} of plain right ones: it tells nothing here"
    )


def _copied(numbers: Json, source: str) -> float:
    """Share of the right rollouts of cliffs that one sign of copying marks, beyond plain correct ones."""
    worst = largest_excess(numbers["sources"][source]["leaks"])
    return worst[0] if worst else 0.0


def _cliff_share(numbers: Json) -> Json | None:
    return next((row["share"] for row in numbers["cliffs"]["by_k"] if row["k"] == numbers["K"]), None)


def _rate(entry: Json) -> Json | None:
    """Chance that one privileged rollout of a cliff is correct; None where no cliff has one."""
    return entry.get("on_cliffs", {}).get("pass", {}).get("1")


def _called(source: str) -> str:
    name, _, share = source.partition(":")
    return f"first {100 * float(share):.0f} % of the solution" if share else name
