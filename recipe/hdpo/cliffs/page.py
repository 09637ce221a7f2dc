"""The page: a summary, and the cliffs as data that ``page.js`` draws. Whatever a run wrote is escaped."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from recipe.hdpo.cliffs.entry import TOKENS, cliff_entry
from recipe.hdpo.cliffs.files import Line, Run
from recipe.hdpo.cliffs.sample import BoundedSample
from recipe.hdpo.evaluation.templates import page_templates
from recipe.hdpo.evaluation.wording import counted

# 5 MB less the frame of the page.
BUDGET = 4_900_000
# Of a larger cliff fewer tokens are shown, so that it leaves room for others.
LARGEST = BUDGET // 5

_ENVIRONMENT = page_templates(Path(__file__).parent)


def cliff_page(run: Run, pattern: re.Pattern[str], budget: int = BUDGET) -> tuple[str, str]:
    """The page as HTML text, and its headline.

    Args:
        pattern: finds phrases that speak of a reference.
        budget: bytes for the cliffs.
    """
    (visits, reissued), sample, counts = run.visits(), BoundedSample(budget), Counter[str]()
    for step in run.steps:
        groups = [line for line in run.groups(step) if line["cliff"] or line["reissued"]]
        for group in groups:
            counts["re-issued" if group["reissued"] else "cliffs"] += 1
            counts["attempts"] += len(group["attempts"])
            counts["kept"] += sum(each["kept"] for each in group["attempts"])
        # A cliff that was re-issued is one entry: where its privileged rollouts were made.
        shown = [line for line in groups if line["uid"] not in reissued]
        for uid, text in _entries(run, step, shown, visits, pattern):
            sample.add(uid, text)
    problems = [of_one for of_one in visits.values() if any(visit[1] == "cliff" for visit in of_one)]
    again = [of_one for of_one in problems if _after_cliff(of_one)]
    solved = sum(any(visit[1] == "solved" for visit in _after_cliff(of_one)) for of_one in again)
    texts = sample.texts()
    said = headline(counts, len(run.steps), len(again), solved)
    page = _ENVIRONMENT.get_template("page.html").render(
        folder=str(run.folder.name),
        headline=said,
        counts=counts,
        steps=run.steps,
        without_rollouts=run.without_rollouts,
        shown=len(texts),
        of=sample.seen,
        data=Markup("[" + ",\n".join(texts) + "]"),
    )
    return page, said


def headline(counts: Counter[str], steps: int, again: int, solved: int) -> str:
    """What the page shows, in one sentence."""
    if not counts["cliffs"] and not counts["re-issued"]:
        return f"No cliff in {counted(steps, 'step')}."
    said = f"{counted(counts['cliffs'], 'cliff')} in {counted(steps, 'step')}: "
    said += f"{counted(counts['attempts'], 'privileged rollout')}, {counts['kept']} kept."
    if again:
        said += f" Of {counted(again, 'problem')} that came again after a cliff, a later visit solved {solved}."
    return said


def data_text(entry: Any) -> str:
    """JSON that may stand in a script element: no text in it can end that, nor begin another."""
    text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _entries(
    run: Run, step: int, groups: list[Line], visits: dict[str, list[Any]], pattern: re.Pattern[str]
) -> Iterator[tuple[str, str]]:
    """(uid, data as text) of each group."""
    rollouts = run.rollouts(step, {line["uid"] for line in groups})
    # A re-issued cliff's rollouts were written with its own group, steps before.
    before = [line for line in groups if line["reissued"] and line["cliff_uid"]]
    if before:
        rollouts |= _of_earlier(run, step, before, visits)
    kept = run.kept(step) if groups else {}
    for group in groups:
        parts = (step, group, rollouts.get(group["uid"], []), kept, visits.get(group["problem"], []), pattern)
        tokens = TOKENS
        text = data_text(cliff_entry(*parts))
        while len(text.encode()) > LARGEST and tokens > 100:
            tokens //= 2
            text = data_text(cliff_entry(*parts, tokens=tokens))
        yield group["uid"], text


def _of_earlier(run: Run, step: int, lines: list[Line], visits: dict[str, list[Any]]) -> dict[str, list[Line]]:
    """Rollouts of re-issued cliffs by their own uid, from the steps in which their problem was a cliff."""
    wanted = {line["cliff_uid"]: line["uid"] for line in lines}
    steps = {v[0] for line in lines for v in visits.get(line["problem"], []) if v[1] == "cliff" and v[0] <= step}
    found: dict[str, list[Line]] = {}
    for earlier in sorted(steps, reverse=True):
        if len(found) < len(wanted):
            found |= {wanted[uid]: rows for uid, rows in run.rollouts(earlier, set(wanted)).items()}
    return found


def _after_cliff(visits: list[Any]) -> list[Any]:
    first = next(i for i, visit in enumerate(visits) if visit[1] == "cliff")
    return visits[first + 1 :]
