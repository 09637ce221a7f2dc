"""Single values of verl's config that never work with HDPO, as a table. A row of it is a rule, as in ``rules.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omegaconf import DictConfig

from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import ACTOR, ROLLOUT, select


@dataclass(frozen=True)
class WrongValue:
    """A value of one key that never works.

    Example:
        ``WrongValue("distillation.enabled", True, "is verl's own distillation", "set it to false")``

    Attributes:
        key: dotted, of verl's config.
        value: the one that is refused.
        reason: continues "KEY=VALUE".
        way_out: what to do.
        unset: whether a config without the key counts as refused.
        when: whether the row counts with these knobs.
    """

    key: str
    value: bool | str
    reason: str
    way_out: str = "set it to false"
    unset: bool = False
    when: Callable[[HDPOConfig], bool] = lambda hdpo: True

    def __call__(self, config: DictConfig, hdpo: HDPOConfig) -> str | None:
        """A rule."""
        found = select(config, self.key, self.value if self.unset else None)
        if found != self.value or not self.when(hdpo):
            return None
        value = str(found).lower() if isinstance(found, bool) else found
        return f"{self.key}={value} {self.reason}: {self.way_out}"


@dataclass(frozen=True)
class OnlyValues:
    """A key of which a few values work and all others are refused, null too.

    Attributes:
        key: dotted, of verl's config.
        values: those that work.
        reason: continues "KEY=VALUE".
        way_out: what to do.
    """

    key: str
    values: tuple[str, ...]
    reason: str
    way_out: str

    def __call__(self, config: DictConfig, hdpo: HDPOConfig) -> str | None:
        """A rule."""
        found = select(config, self.key)
        return None if found in self.values else f"{self.key}={found} {self.reason}: {self.way_out}"


TABLE: tuple[WrongValue | OnlyValues, ...] = (
    WrongValue(
        "trainer.use_v1",
        False,
        "runs verl's legacy trainer, which has no hook for privileged rollouts",
        "set trainer.use_v1=true",
        unset=True,
    ),
    WrongValue(
        "skip.rollout_tq.enable",
        True,
        "stores fields that every row of a step has, and the groups' records have none",
    ),
    WrongValue("algorithm.filter_groups.enable", True, "evicts groups of equal reward, so every cliff"),
    WrongValue(
        "distillation.enabled",
        True,
        "is verl's own distillation from another model, whose loss would take the place of HDPO's",
    ),
    WrongValue(
        f"{ACTOR}.policy_loss.loss_mode",
        "bypass_mode",
        "raises on a micro-batch of privileged rows alone",
        "use another loss, such as hdpo",
        when=lambda hdpo: hdpo.distills,
    ),
    WrongValue(
        f"{ACTOR}.fsdp_config.qat.enable",
        True,
        "with hdpo.teacher=ema: verl keeps the scales of the actor's quantized weights, which are not the average's",
        "set it to false, or use another teacher",
        when=lambda hdpo: hdpo.reads_teacher and hdpo.teacher == "ema",
    ),
    WrongValue(
        "critic.enable",
        True,
        "trains a critic, and HDPO's leave-one-out advantage reads none",
        "set it to null, or hdpo.adv_estimator=null with algorithm.adv_estimator=gae",
        when=lambda hdpo: hdpo.adv_estimator is not None,
    ),
    OnlyValues(
        f"{ROLLOUT}.name",
        ("vllm", "sglang", "trtllm"),
        "is no engine that verl's V1 trainer has a server for",
        "use vllm",
    ),
    OnlyValues(
        f"{ACTOR}.strategy",
        ("fsdp", "fsdp2"),
        "is another engine than FSDP, and the distillation term is written for the FSDP engine",
        "use fsdp2 (or fsdp)",
    ),
)
