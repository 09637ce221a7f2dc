"""The recipe's knobs as typed records. Defaults stand in ``hdpo/default.yaml`` and nowhere else."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from recipe.hdpo.algorithm import coefficient
from recipe.hdpo.algorithm.divergence_formulas import DivergenceKind
from recipe.hdpo.algorithm.gate import Gate
from recipe.hdpo.algorithm.ladder import rung_sizes
from recipe.hdpo.algorithm.solution_prefix import PREFIX, prefix_share

ESTIMATORS = ("hdpo", None)
TEACHERS = ("drifting", "frozen", "ema", "mixed")
SOURCES = ("solution", "answer", "problem", "feedback")
KEEPS = ("correct", "all")
USES = ("distill", "replace")
PLACEMENTS = ("user", "system")
SCHEDULES = ("same_step", "next_step")
# Those of divergence_formulas.py, and hard labels.
DIVERGENCES = (*typing.get_args(DivergenceKind), "cross_entropy")


@dataclass(frozen=True)
class DivergenceConfig:
    """``hdpo.divergence``."""

    kind: str
    beta: float
    clip: float | None
    entropy_damping: float
    reliance_damping: float
    chunk_size: int | None

    def __post_init__(self) -> None:
        _one_of("hdpo.divergence.kind", self.kind, DIVERGENCES)
        _require(
            self.kind != "jsd" or 0.0 < self.beta < 1.0,
            f"hdpo.divergence.beta={self.beta} must lie strictly between 0 and 1; "
            "at the ends use hdpo.divergence.kind=forward_kl or reverse_kl",
        )
        _require(self.clip is None or self.clip > 0.0, f"hdpo.divergence.clip={self.clip} must be null or above 0")
        for name in ("entropy_damping", "reliance_damping"):
            value = getattr(self, name)
            _require(value >= 0.0, f"hdpo.divergence.{name}={value} must be 0 (every token counts alike) or more")
            _require(
                value == 0.0 or self.kind != "cross_entropy",
                f"hdpo.divergence.{name}={value} with kind=cross_entropy: hard labels read no teacher that could weigh "
                "tokens: set it to 0, or choose another kind",
            )
        _require(
            self.chunk_size is None or self.chunk_size > 0,
            f"hdpo.divergence.chunk_size={self.chunk_size} must be null or at least 1",
        )

    @property
    def weighs_tokens(self) -> bool:
        """Whether some tokens count less than others."""
        return self.entropy_damping > 0.0 or self.reliance_damping > 0.0


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
        _require(self.n >= 0, f"hdpo.privileged.n={self.n} must be 0 (no privileged rollouts) or more")
        check_sources(self.sources, self.n)
        _one_of("hdpo.privileged.keep", self.keep, KEEPS)
        _one_of("hdpo.privileged.use", self.use, USES)
        _one_of("hdpo.privileged.placement", self.placement, PLACEMENTS)
        _one_of("hdpo.privileged.schedule", self.schedule, SCHEDULES)
        _require(
            self.shows or self.use != "distill",
            "hdpo.privileged.source=problem shows the teacher what the student sees, so there is nothing to distill: "
            "set hdpo.privileged.use=replace (GRPO with extra rollouts of cliffs), or source=solution",
        )
        _require(
            self.shows or not self.chat_template_kwargs,
            f"hdpo.privileged.chat_template_kwargs={self.chat_template_kwargs} with source=problem: those rollouts are "
            "of the plain prompt, which has data.apply_chat_template_kwargs: leave it empty",
        )
        _require(
            (self.keep, self.use) != ("all", "replace"),
            "hdpo.privileged.keep=all with use=replace would put failures in the place of failures: set keep=correct",
        )
        _require(
            (self.schedule, self.use) != ("next_step", "replace"),
            "hdpo.privileged.schedule=next_step with use=replace: the failures that would be replaced are a step old "
            "and were trained on: set schedule=same_step",
        )
        _require(
            self.shows or not self.gate.asks,
            f"hdpo.privileged.gate.{self.gate.asks and self.gate.asks[0]} with source=problem: nothing is shown that "
            "could be copied: set it to null (speaks: to false), or show something",
        )
        _require(
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


@dataclass(frozen=True)
class HDPOConfig:
    """``hdpo``: every knob of the recipe. See ``hdpo/default.yaml`` for meanings and defaults."""

    distillation_loss_coef: float
    distillation_loss_schedule: str
    adv_estimator: str | None
    teacher: str
    ema_decay: float
    mixed_weight: float
    topk: int | None
    success_reward: float
    gradient_ratio_interval: int
    collapse_warning: float
    rollout_seed: int | None
    validate_greedy: bool
    poll_interval: float
    max_staleness: int | None
    max_lost_rollouts: float
    fused_head: bool
    reward_timeout: float
    stall_timeout: float
    divergence: DivergenceConfig
    privileged: PrivilegedConfig

    def __post_init__(self) -> None:
        _require(
            self.distillation_loss_coef >= 0.0,
            f"hdpo.distillation_loss_coef={self.distillation_loss_coef} (lambda) must be 0 or more: a negative weight "
            "would push the student away from correct solutions",
        )
        _one_of("hdpo.distillation_loss_schedule", self.distillation_loss_schedule, coefficient.SCHEDULES)
        _require(
            self.adv_estimator in ESTIMATORS,
            f"hdpo.adv_estimator={self.adv_estimator!r} must be hdpo, or null for algorithm.adv_estimator's",
        )
        _one_of("hdpo.teacher", self.teacher, TEACHERS)
        _require(
            0.0 <= self.ema_decay <= 1.0,
            f"hdpo.ema_decay={self.ema_decay} must lie between 0 (the drifting teacher) and 1 (the initial weights)",
        )
        _require(
            0.0 <= self.mixed_weight <= 1.0,
            f"hdpo.mixed_weight={self.mixed_weight} must lie between 0 (the drifting teacher) and 1 (the frozen one)",
        )
        _require(
            self.privileged.gate.reliance is None or (self.divergence.kind != "cross_entropy" and self.distills),
            f"hdpo.privileged.gate.reliance={self.privileged.gate.reliance} is asked of trajectories that are "
            "distilled from a teacher, and here none is (kind=cross_entropy, use=replace, n=0 or "
            "distillation_loss_coef=0): set it to null",
        )
        _require(self.topk is None or self.topk >= 1, f"hdpo.topk={self.topk} must be null or at least 1")
        _require(
            self.gradient_ratio_interval >= 0,
            f"hdpo.gradient_ratio_interval={self.gradient_ratio_interval} must be 0 (never) or a number of steps",
        )
        _require(
            0.0 <= self.collapse_warning < 1.0,
            f"hdpo.collapse_warning={self.collapse_warning} must be 0 (never) or a fraction below 1",
        )
        _require(
            0.0 <= self.max_lost_rollouts <= 1.0,
            f"hdpo.max_lost_rollouts={self.max_lost_rollouts} must be a share of a step's rollouts, from 0 (stop at "
            "the first that is lost) to 1 (stop only when all are)",
        )
        _require(
            self.max_staleness is None or self.max_staleness >= 0,
            f"hdpo.max_staleness={self.max_staleness} must be null (as many as verl allows rollouts) or a number of "
            "weight versions, from 0 (those at hand alone)",
        )
        for name, meaning in (("reward_timeout", "no limit"), ("stall_timeout", "never")):
            value = getattr(self, name)
            _require(value >= 0, f"hdpo.{name}={value} must be 0 ({meaning}) or a number of seconds")
        _require(self.poll_interval > 0, f"hdpo.poll_interval={self.poll_interval} must be above 0 seconds")

    @property
    def distills(self) -> bool:
        """Whether the distillation term can ever be part of the loss."""
        return self.distillation_loss_coef > 0.0 and self.privileged.n > 0 and self.privileged.use == "distill"

    @property
    def reads_teacher(self) -> bool:
        """Whether a teacher's distribution is ever needed: hard labels need none."""
        return self.distills and self.divergence.kind != "cross_entropy"

    @property
    def reads_initial_model(self) -> bool:
        """Whether the initial model's distribution is ever needed."""
        return self.reads_teacher and self.teacher in ("frozen", "mixed")

    @classmethod
    def from_mapping(cls, node: Mapping[str, Any] | None) -> HDPOConfig:
        """Read the ``hdpo`` node of a composed config.

        Raises:
            ValueError: the node or a key is missing, a key is unknown, or a value is out of range or of a wrong type.
        """
        if node is None:
            raise ValueError("the config has no `hdpo` node: add +use=hdpo, or start from --config-name hdpo_trainer")
        return _read(cls, node, "hdpo")


def _read(cls: Any, node: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    known = {field.name for field in fields(cls)}
    unknown, missing = sorted(set(node) - known), sorted(known - set(node))
    _require(not unknown, f"{where} has unknown keys {unknown}; known are {sorted(known)}")
    _require(not missing, f"{where} lacks {missing}; see recipe/hdpo/config/hdpo/default.yaml for their defaults")
    values = {}
    for name in known:
        hint, value = hints[name], node[name]
        if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
            _require(isinstance(value, Mapping), f"{where}.{name} must be a group of keys, not {value!r}")
            values[name] = _read(hint, value, f"{where}.{name}")
        else:
            values[name] = _typed(value, hint, f"{where}.{name}")
    return cls(**values)


def _typed(value: Any, hint: Any, where: str) -> Any:
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}={value} must be a finite number")
    allowed = tuple(typing.get_origin(each) or each for each in allowed)
    if type(value) in allowed:
        return value
    names = " or ".join("null" if t is type(None) else t.__name__ for t in allowed)
    raise ValueError(f"{where}={value!r} must be of type {names}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _one_of(where: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"{where}={value!r} must be one of {', '.join(choices)}")


def check_sources(sources: tuple[str, ...], n: int) -> None:
    """ValueError for ``hdpo.privileged.source``, one or the rungs of a ladder, with ``n`` privileged rollouts."""
    key, listed = "hdpo.privileged.source", f"[{','.join(map(str, sources))}]"
    _require(bool(sources), f"{key}=[] shows nothing: name a source, such as solution, or several")
    for source in sources:
        _require(isinstance(source, str), f"{key}={listed}: {source!r} must be of type str")
        check_source(key, source)
    if len(sources) == 1:
        return
    _require("problem" not in sources, f"{key}={listed}: problem shows nothing, so it is no rung of a ladder")
    _require(len(set(sources)) == len(sources), f"{key}={listed}: each rung of a ladder stands there once")
    _require(
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
        _one_of(where, value, (*SOURCES, f"{PREFIX}:SHARE"))
