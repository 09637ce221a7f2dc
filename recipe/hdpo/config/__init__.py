"""The recipe's knobs as typed records. Defaults stand in ``hdpo/default.yaml`` and nowhere else."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipe.hdpo.algorithm import coefficient
from recipe.hdpo.algorithm.divergence_formulas import DivergenceKind
from recipe.hdpo.config.privileged import PrivilegedConfig
from recipe.hdpo.config.reading import one_of, read_node, require

ESTIMATORS = ("hdpo", None)
TEACHERS = ("drifting", "frozen", "ema", "mixed")
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
        one_of("hdpo.divergence.kind", self.kind, DIVERGENCES)
        require(
            self.kind != "jsd" or 0.0 < self.beta < 1.0,
            f"hdpo.divergence.beta={self.beta} must lie strictly between 0 and 1; "
            "at the ends use hdpo.divergence.kind=forward_kl or reverse_kl",
        )
        require(self.clip is None or self.clip > 0.0, f"hdpo.divergence.clip={self.clip} must be null or above 0")
        for name in ("entropy_damping", "reliance_damping"):
            value = getattr(self, name)
            require(value >= 0.0, f"hdpo.divergence.{name}={value} must be 0 (every token counts alike) or more")
            require(
                value == 0.0 or self.kind != "cross_entropy",
                f"hdpo.divergence.{name}={value} with kind=cross_entropy: hard labels read no teacher that could weigh "
                "tokens: set it to 0, or choose another kind",
            )
        require(
            self.chunk_size is None or self.chunk_size > 0,
            f"hdpo.divergence.chunk_size={self.chunk_size} must be null or at least 1",
        )

    @property
    def weighs_tokens(self) -> bool:
        """Whether some tokens count less than others."""
        return self.entropy_damping > 0.0 or self.reliance_damping > 0.0


@dataclass(frozen=True)
class HDPOConfig:
    """``hdpo``: every knob of the recipe. See ``hdpo/default.yaml`` for meanings and defaults."""

    distillation_loss_coef: float
    distillation_loss_schedule: str
    reinjection_delay: int
    reinjection_share: float
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
        require(
            self.distillation_loss_coef >= 0.0,
            f"hdpo.distillation_loss_coef={self.distillation_loss_coef} (lambda) must be 0 or more: a negative weight "
            "would push the student away from correct solutions",
        )
        one_of("hdpo.distillation_loss_schedule", self.distillation_loss_schedule, coefficient.SCHEDULES)
        require(
            self.reinjection_delay >= 0,
            f"hdpo.reinjection_delay={self.reinjection_delay} must be 0 (off) or a number of steps",
        )
        require(
            0.0 < self.reinjection_share <= 1.0,
            f"hdpo.reinjection_share={self.reinjection_share} must be a share of a batch, above 0 and at most 1",
        )
        require(
            self.reinjection_delay == 0 or self.distills,
            f"hdpo.reinjection_delay={self.reinjection_delay} lets cliffs rest that were distilled on, and here none "
            "is (use=replace, n=0 or distillation_loss_coef=0): set it to 0",
        )
        require(
            self.reinjection_delay == 0 or self.privileged.gate.reliance is None,
            f"hdpo.reinjection_delay={self.reinjection_delay} with hdpo.privileged.gate.reliance="
            f"{self.privileged.gate.reliance}: that gate decides in the loss, when the cliffs to rest are chosen "
            "already, so that some would rest which nothing was distilled of: leave one of them off",
        )
        require(
            self.adv_estimator in ESTIMATORS,
            f"hdpo.adv_estimator={self.adv_estimator!r} must be hdpo, or null for algorithm.adv_estimator's",
        )
        one_of("hdpo.teacher", self.teacher, TEACHERS)
        require(
            0.0 <= self.ema_decay <= 1.0,
            f"hdpo.ema_decay={self.ema_decay} must lie between 0 (the drifting teacher) and 1 (the initial weights)",
        )
        require(
            0.0 <= self.mixed_weight <= 1.0,
            f"hdpo.mixed_weight={self.mixed_weight} must lie between 0 (the drifting teacher) and 1 (the frozen one)",
        )
        require(
            self.privileged.gate.reliance is None or (self.divergence.kind != "cross_entropy" and self.distills),
            f"hdpo.privileged.gate.reliance={self.privileged.gate.reliance} is asked of trajectories that are "
            "distilled from a teacher, and here none is (kind=cross_entropy, use=replace, n=0 or "
            "distillation_loss_coef=0): set it to null",
        )
        require(self.topk is None or self.topk >= 1, f"hdpo.topk={self.topk} must be null or at least 1")
        require(
            self.gradient_ratio_interval >= 0,
            f"hdpo.gradient_ratio_interval={self.gradient_ratio_interval} must be 0 (never) or a number of steps",
        )
        require(
            0.0 <= self.collapse_warning < 1.0,
            f"hdpo.collapse_warning={self.collapse_warning} must be 0 (never) or a fraction below 1",
        )
        require(
            0.0 <= self.max_lost_rollouts <= 1.0,
            f"hdpo.max_lost_rollouts={self.max_lost_rollouts} must be a share of a step's rollouts, from 0 (stop at "
            "the first that is lost) to 1 (stop only when all are)",
        )
        require(
            self.max_staleness is None or self.max_staleness >= 0,
            f"hdpo.max_staleness={self.max_staleness} must be null (as many as verl allows rollouts) or a number of "
            "weight versions, from 0 (those at hand alone)",
        )
        for name, meaning in (("reward_timeout", "no limit"), ("stall_timeout", "never")):
            value = getattr(self, name)
            require(value >= 0, f"hdpo.{name}={value} must be 0 ({meaning}) or a number of seconds")
        require(self.poll_interval > 0, f"hdpo.poll_interval={self.poll_interval} must be above 0 seconds")

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
        return read_node(cls, node, "hdpo")
