"""``hdpo.privileged``: what cliffs are shown, and what becomes of the rollouts that were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipe.hdpo.algorithm.gate import Gate
from recipe.hdpo.algorithm.ladder import rung_sizes
from recipe.hdpo.algorithm.solution_prefix import PREFIX, prefix_share
from recipe.hdpo.config.reading import one_of, require

SOURCES = ("solution", "answer", "problem", "feedback")
KEEPS = ("correct", "all")
USES = ("distill", "replace")
PLACEMENTS = ("user", "system")
SCHEDULES = ("same_step", "next_step")


@dataclass(frozen=True)
class PrivilegedConfig:
    """``hdpo.privileged``."""

    n: int
    source: str | list[str]
    keep: str
    keep_truncated: bool
    use: str
    solution_key: str
    answer_key: str
    join_texts: bool
    placement: str
    template: str | None
    feedback_key: str
    feedback_template: str | None
    chat_template_kwargs: dict[str, Any]
    max_prompt_length: int | None
    schedule: str
    phrases: str | None
    step_check: str | None
    gate: Gate

    def __post_init__(self) -> None:
        require(self.n >= 0, f"hdpo.privileged.n={self.n} must be 0 (no privileged rollouts) or more")
        check_sources(self.sources, self.n)
        one_of("hdpo.privileged.keep", self.keep, KEEPS)
        one_of("hdpo.privileged.use", self.use, USES)
        one_of("hdpo.privileged.placement", self.placement, PLACEMENTS)
        one_of("hdpo.privileged.schedule", self.schedule, SCHEDULES)
        require(
            self.shows or self.use != "distill",
            "hdpo.privileged.source=problem shows the teacher what the student sees, so there is nothing to distill: "
            "set hdpo.privileged.use=replace (GRPO with extra rollouts of cliffs), or source=solution",
        )
        require(
            self.shows or not self.chat_template_kwargs,
            f"hdpo.privileged.chat_template_kwargs={self.chat_template_kwargs} with source=problem: those rollouts are "
            "of the plain prompt, which has data.apply_chat_template_kwargs: leave it empty",
        )
        require(
            (self.keep, self.use) != ("all", "replace"),
            "hdpo.privileged.keep=all with use=replace would put failures in the place of failures: set keep=correct",
        )
        require(
            (self.schedule, self.use) != ("next_step", "replace"),
            "hdpo.privileged.schedule=next_step with use=replace: the failures that would be replaced are a step old "
            "and were trained on: set schedule=same_step",
        )
        require(
            self.shows or not self.gate.asks,
            f"hdpo.privileged.gate.{self.gate.asks and self.gate.asks[0]} with source=problem: nothing is shown that "
            "could be copied: set it to null (speaks: to false), or show something",
        )
        require(
            self.gate.steps is None or self.step_check is not None,
            f"hdpo.privileged.gate.steps={self.gate.steps} without a check of steps: name one by "
            "hdpo.privileged.step_check (recipe.hdpo.step_check.arithmetic for arithmetic), or set it to null",
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """What privileged prompts show: one source, or the rungs of a ladder, the least telling one first."""
        return tuple(self.source) if isinstance(self.source, list) else (self.source,)

    @property
    def of_feedback(self) -> int:
        """How many privileged rollouts a cliff may have that show feedback."""
        sizes = zip(self.sources, rung_sizes(self.n, len(self.sources)), strict=True)
        return sum(size for source, size in sizes if source == "feedback")

    @property
    def shows(self) -> bool:
        """Whether privileged prompts show more than the problem."""
        return self.sources != ("problem",)


def check_sources(sources: tuple[str, ...], n: int) -> None:
    """ValueError for ``hdpo.privileged.source``, one or the rungs of a ladder, with ``n`` privileged rollouts."""
    key, listed = "hdpo.privileged.source", f"[{','.join(map(str, sources))}]"
    require(bool(sources), f"{key}=[] shows nothing: name a source, such as solution, or several")
    for source in sources:
        require(isinstance(source, str), f"{key}={listed}: {source!r} must be of type str")
        check_source(key, source)
    if len(sources) == 1:
        return
    require("problem" not in sources, f"{key}={listed}: problem shows nothing, so it is no rung of a ladder")
    require(len(set(sources)) == len(sources), f"{key}={listed}: each rung of a ladder stands there once")
    require(
        n == 0 or n >= len(sources),
        f"{key}={listed} has {len(sources)} rungs, and hdpo.privileged.n={n} is less than one rollout for each: raise "
        "n, or leave rungs out",
    )


def check_source(where: str, value: str) -> None:
    """ValueError for a source of privileged text that there is not.

    Args:
        where: what the value is called, such as ``hdpo.privileged.source``.
    """
    try:
        share = prefix_share(value)
    except ValueError as error:
        raise ValueError(f"{where}={error}") from error
    if share is None:
        one_of(where, value, (*SOURCES, f"{PREFIX}:SHARE"))
