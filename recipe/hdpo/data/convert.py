"""Rows of any data set, with columns named by the user or by a preset, become rows of verl's schema.

Of each problem one row is kept. What is left out is counted by reason and named by its number in the source. Which
problems are held out depends on the seed and on their text alone, so no later run with more rows moves one from test
to training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from recipe.hdpo.algorithm.privileged_prompt import text_at, why_no_text
from recipe.hdpo.answers.compare import same_answer
from recipe.hdpo.data.presets import Preset
from recipe.hdpo.data.rows import DataError, Rejected, build_row, reject_reason
from recipe.hdpo.data.sources import Row, value_at
from recipe.hdpo.data.truths import self_grade
from recipe.hdpo.math_answer import after_thinking, final_answer, joint_answer

# Stands for an answer that is none; no Markdown heading.
_NONE = "(none)"


@dataclass(frozen=True)
class Conversion:
    """How a row of the source becomes one of the schema.

    Attributes:
        preset: the columns, and how each is read.
        only: a row is read where these dotted keys have one of these texts, or a value that is written so.
        join: whether a list of texts is one text, joined by line breaks.
        grade: whether ground truths are graded against themselves.
    """

    preset: Preset
    only: Mapping[str, Collection[str]]
    join: bool = False
    grade: bool = True

    @property
    def keys(self) -> list[str]:
        """The dotted keys that a source must have."""
        preset = self.preset
        wanted = (preset.problem, preset.solution, preset.answer, preset.difficulty, *self.only)
        return list(dict.fromkeys(key for key in wanted if key is not None))

    def fields(self, row: Row) -> tuple[dict[str, Any], str | None]:
        """(arguments of ``build_row``, None), or ({}, why the row is left out)."""
        for key, texts in self.only.items():
            if not _spellings(value_at(row, key)) & set(texts):
                return {}, f"another {key}"
        preset = self.preset
        problem, fault = self._problem(row)
        if fault is not None:
            return {}, fault
        solution = self._read(row, preset.solution, preset.read_solution)
        answer_key = preset.answer or preset.solution
        answer = self._read(row, answer_key, preset.read_answer if preset.answer else stated_answer)
        prompt_text = f"{problem}\n{preset.instruction}" if preset.instruction else problem
        worked = preset.solution is not None
        reason = reject_reason(problem, solution, answer, prompt_text, worked=worked)
        if reason is None and worked and _states_another(str(solution), str(answer)):
            reason = "the solution states another answer"
        if reason is not None:
            return {}, reason + self._instead(row, reason)
        fields = {"problem": problem, "solution": solution, "answer": answer, "prompt_text": prompt_text}
        difficulty = text_at({"at": value_at(row, preset.difficulty)}, "at") if preset.difficulty else None
        if difficulty is not None:
            fields["difficulty"] = difficulty.removeprefix("Level ")
        return fields, None

    def _problem(self, row: Row) -> tuple[str | None, str | None]:
        value = value_at(row, self.preset.problem)
        if isinstance(value, list) and value and all(isinstance(message, Mapping) for message in value):
            if len(value) > 1:
                return None, "the problem is a conversation of several messages"
            value = value[0].get("content", value[0].get("value"))
        text = text_at({"at": value}, "at", join=self.join)
        read = None if text is None else self.preset.read_problem(text)
        return (None if read is None else read.strip()), None

    def _read(self, row: Row, key: str | None, read: Any) -> str | None:
        text = None if key is None else text_at({"at": value_at(row, key)}, "at", join=self.join)
        found = None if text is None else read(text)
        return None if found is None else found.strip()

    def _instead(self, row: Row, reason: str) -> str:
        """What stands where there is no text."""
        name = reason.removeprefix("no ")
        key = getattr(self.preset, name, None) or (self.preset.solution if name == "answer" else None)
        if not reason.startswith("no ") or key is None:
            return ""
        at = {"at": value_at(row, key)}
        if text_at(at, "at", join=self.join) is None:
            return f" ({key} holds {why_no_text(at, 'at')})"
        return f" (none could be read from {key})"


def convert(
    rows: Iterable[Row],
    conversion: Conversion,
    rejected: Rejected,
    most: int | None = None,
    taken: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Arguments of ``build_row`` for the first usable row of each problem, until there are ``most``.

    Args:
        taken: ``same_text`` of problems of the test split, which are left out.
    """
    kept: dict[str, dict[str, Any]] = {}
    graded: dict[str, str | None] = {}
    with tqdm(rows, desc="reading", unit="row", mininterval=1.0) as bar:
        for number, row in enumerate(bar):
            fields, reason = conversion.fields(row)
            key = "" if reason else same_text(fields["problem"])
            reason = reason or _repeats(key, fields, kept, taken) or _ungradable(fields, graded, conversion.grade)
            if reason is not None:
                rejected.add(reason, number)
                continue
            kept[key] = fields
            if len(kept) % 1000 == 0:
                bar.set_postfix(problems=len(kept))
            if len(kept) == most:
                break
    if not kept:
        raise DataError("; ".join(["no usable row", *rejected.lines()]))
    return list(kept.values())


def divide(kept: list[dict[str, Any]], fraction: float, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Problems by split, as :func:`is_test` says.

    Raises:
        DataError: a split would be empty.
    """
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for fields in kept:
        parts["test" if is_test(fields["problem"], fraction, seed) else "train"].append(fields)
    for split, part in parts.items():
        if not part:
            raise DataError(
                f"none of the {len(kept)} problems falls into the {split} split at --test-fraction {fraction}: change "
                "it, or read more rows"
            )
    return parts


def build(data_source: str, parts: dict[str, list[dict[str, Any]]], *, worked: bool) -> dict[str, list[dict[str, Any]]]:
    """Rows of the schema, numbered within each split."""
    return {
        split: [build_row(data_source, split=split, index=i, worked=worked, **f) for i, f in enumerate(part)]
        for split, part in parts.items()
    }


def is_test(problem: str, test_fraction: float, seed: int) -> bool:
    """Whether the problem belongs to the test split: SHA-256 of seed and text, as a number in [0, 1), is below the
    fraction."""
    digest = hashlib.sha256(f"{seed}\n{problem}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < test_fraction * 2**64


def same_text(problem: str) -> str:
    """Equal for problems that differ in white space alone."""
    return " ".join(problem.split())


def stated_answer(solution: str) -> str | None:
    """The final answer of a solution; none where it is a Markdown heading (``#### Conclusion``) that text follows."""
    text = after_thinking(solution)
    # A heading is no answer where another marker has one.
    if final_answer(f"#### {_NONE}\n{text}") == _NONE and len(text.rpartition("####")[2].strip().splitlines()) > 1:
        return None
    return final_answer(text)


def _states_another(solution: str, answer: str) -> bool:
    stated = [text for text in (stated_answer(solution), joint_answer(solution)) if text is not None]
    return bool(stated) and all(same_answer(text, answer) is False for text in stated)


def _spellings(value: Any) -> set[str]:
    """How a value may be written: as Python or JSON writes it; a whole float, which pandas makes of integers beside a
    missing value, also as its integer."""
    whole = {str(int(value))} if isinstance(value, float) and value.is_integer() else set()
    return {str(value), json.dumps(value, default=str)} | whole


def _repeats(key: str, fields: dict[str, Any], kept: dict[str, Any], taken: Collection[str]) -> str | None:
    if key in taken:
        return "the problem is in the test split"
    if key not in kept:
        return None
    differs = same_answer(fields["answer"], kept[key]["answer"]) is False
    return "a further row of a problem that has one" + (", with another answer" if differs else "")


def _ungradable(fields: dict[str, Any], graded: dict[str, str | None], grade: bool) -> str | None:
    answer = fields["answer"]
    if grade and answer not in graded:
        graded[answer] = self_grade(answer)
    fault = graded.get(answer)
    return f"the answer is {fault}" if fault else None
