"""Combinations of verl's settings under which HDPO's update is compared with its definition."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# By ranks, and fields of verl's FSDPEngineConfig.
SHAPES: dict[str, tuple[int, dict[str, Any]]] = {
    "FSDP2, 1 rank": (1, {}),
    "FSDP2, 2 ranks": (2, {}),
    "FSDP2, 4 ranks": (4, {}),
    "HSDP, 2 x 2 ranks": (4, {"fsdp_size": 2}),
    "FSDP1, 1 rank": (1, {"strategy": "fsdp"}),
    "FSDP1, 2 ranks": (2, {"strategy": "fsdp"}),
    "HSDP of FSDP1, 2 x 2 ranks": (4, {"strategy": "fsdp", "fsdp_size": 2}),
    "sequence parallel, 2 ranks": (2, {"ulysses_sequence_parallel_size": 2}),
    "sequence parallel, 2 x 2 ranks": (4, {"ulysses_sequence_parallel_size": 2}),
    "sequence parallel on FSDP1, 2 ranks": (2, {"strategy": "fsdp", "ulysses_sequence_parallel_size": 2}),
}
STORAGE: dict[str, dict[str, Any]] = {
    "on the device": {},
    "weights and optimizer offloaded": {"param_offload": True, "optimizer_offload": True},
    "offload_policy": {"offload_policy": True},
}
GATHERING: dict[str, dict[str, Any]] = {
    "default": {},
    "reshard_after_forward=false": {"reshard_after_forward": False},
    "gradients summed every micro-batch": {"use_no_sync_for_gradient_accumulation": False},
}
CHECKPOINTING: dict[str, dict[str, Any]] = {
    "gradient checkpointing": {},
    "no gradient checkpointing": {"enable_gradient_checkpointing": False},
}
EMBEDDINGS = {"untied": False, "tied": True}
# bf16: weights and activations of a forward, with float32 weights in the optimizer and float32 sums of gradients.
PRECISIONS: dict[str, dict[str, Any]] = {"float32": {}, "bf16": {"dtype": "bf16"}}
HEADS: dict[str, dict[str, Any]] = {"logits": {}, "fused head": {"fused_head": True}}
CUTS: dict[str, dict[str, Any]] = {
    "packed, dynamic": {"max_tokens": 24},
    "packed, 1 row": {"dynamic": False},
    "padded, dynamic": {"packed": False, "max_tokens": 24},
    "padded, 2 rows": {"packed": False, "dynamic": False, "micro_batch_size": 2},
}
TEACHERS = ("drifting", "frozen", "adapter, drifting", "adapter, frozen")
# Mini-batches and epochs.
STEPS = {"1 step": (1, 1), "2 mini-batches": (2, 1), "2 epochs": (1, 2)}
GRADIENT_NORMS = {"norms not measured": False, "norms measured": True}


@dataclass(frozen=True)
class Objective:
    """A policy loss of verl's: fields of its actor config."""

    actor: dict[str, Any]
    importance: bool = False
    per_micro_batch: bool = False


def _loss(mode: str, **settings: Any) -> Objective:
    cut = mode in ("geo_mean", "clip_cov", "kl_cov")
    return Objective({"policy_loss": {"loss_mode": mode, **settings}}, per_micro_batch=cut)


OBJECTIVES: dict[str, Objective] = {
    "hdpo": Objective({}),
    "vanilla": _loss("vanilla"),
    "clip_ratio_high": Objective({"clip_ratio_high": 0.28}),
    "token-sum": Objective({"loss_agg_mode": "token-sum"}),
    "seq-mean-token-sum": Objective({"loss_agg_mode": "seq-mean-token-sum"}),
    "seq-mean-token-mean": Objective({"loss_agg_mode": "seq-mean-token-mean"}),
    "seq-mean-token-sum-norm": Objective({"loss_agg_mode": "seq-mean-token-sum-norm", "loss_scale_factor": 9}),
    "seq-mean-token-sum-norm, no scale": Objective({"loss_agg_mode": "seq-mean-token-sum-norm"}, per_micro_batch=True),
    "entropy": Objective({"entropy_coeff": 0.1}),
    "low_var_kl": Objective({"use_kl_loss": True, "kl_loss_coef": 0.5, "kl_loss_type": "low_var_kl"}),
    "entropy, kl, seq-mean-token-mean": Objective(
        {
            "entropy_coeff": -0.2,
            "use_kl_loss": True,
            "kl_loss_coef": 0.3,
            "kl_loss_type": "kl",
            "loss_agg_mode": "seq-mean-token-mean",
        }
    ),
    "importance weights": Objective({}, importance=True),
    "gspo": Objective({"policy_loss": {"loss_mode": "gspo"}, "loss_agg_mode": "seq-mean-token-mean"}),
    "cispo": _loss("cispo"),
    "sapo": _loss("sapo"),
    "gpg": _loss("gpg"),
    "dro": _loss("dro", dro_beta=0.1),
    "dppo_tv": _loss("dppo_tv"),
    "dppo_kl": _loss("dppo_kl"),
    # Every candidate is clipped: which of them verl draws by chance makes no difference.
    "clip_cov": _loss("clip_cov", clip_cov_ratio=1.0, clip_cov_lb=0.2),
    "kl_cov": _loss("kl_cov", kl_cov_ratio=0.2),
    "geo_mean": _loss("geo_mean"),
}

FACTORS: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "storage": tuple(STORAGE),
    "gathering": tuple(GATHERING),
    "checkpointing": tuple(CHECKPOINTING),
    "embeddings": tuple(EMBEDDINGS),
    "precision": tuple(PRECISIONS),
    "head": tuple(HEADS),
    "cut": tuple(CUTS),
    "teacher": TEACHERS,
    "steps": tuple(STEPS),
    "norms": tuple(GRADIENT_NORMS),
    "objective": tuple(OBJECTIVES),
}
Choice = tuple[str, str]


@dataclass(frozen=True)
class Case:
    """One choice for each of :data:`FACTORS`."""

    shape: str = "FSDP2, 1 rank"
    storage: str = "on the device"
    gathering: str = "default"
    checkpointing: str = "gradient checkpointing"
    embeddings: str = "untied"
    precision: str = "float32"
    head: str = "logits"
    cut: str = "packed, dynamic"
    teacher: str = "drifting"
    steps: str = "1 step"
    norms: str = "norms not measured"
    objective: str = "hdpo"

    @property
    def ranks(self) -> int:
        return SHAPES[self.shape][0]

    @property
    def dealt_to(self) -> int:
        """Data-parallel ranks."""
        return self.ranks // SHAPES[self.shape][1].get("ulysses_sequence_parallel_size", 1)

    @property
    def rounds_as_defined(self) -> bool:
        """Whether gradients are rounded where the definition rounds them: a sequence's, once, and no sum of several.

        FSDP1 sums in bf16 what it does not sum over ranks at once, autograd what comes to the logits from two places.
        """
        sums_in_float32 = "FSDP1" not in self.shape or self.gathering == "gradients summed every micro-batch"
        one_by_one = self.cut == "packed, 1 row" and "sequence parallel" not in self.shape and sums_in_float32
        two_places = self.head == "logits" and bool(OBJECTIVES[self.objective].actor.get("entropy_coeff"))
        return self.precision == "float32" or (one_by_one and not two_places)

    def __str__(self) -> str:
        default = Case()
        changed = [getattr(self, name) for name in FACTORS if getattr(self, name) != getattr(default, name)]
        return "; ".join(changed) or "defaults"


def is_refused(choices: Iterable[Choice]) -> bool:
    """Whether these choices together are refused by the recipe's rules or by verl, or are the same as others.

    FSDP1 has no offload_policy: verl passes over it. verl slices packed rows alone, and wants whole micro-batches: a
    rank's half of its two rollouts is one row.
    """
    found = dict(choices)
    cut, shape, halves = found.get("cut", ""), found.get("shape", ""), found.get("steps") == "2 mini-batches"
    return (
        ("dynamic" in cut and OBJECTIVES[found.get("objective", "hdpo")].per_micro_batch)
        or ("FSDP1" in shape and found.get("storage") == "offload_policy")
        or ("sequence parallel" in shape and "padded" in cut)
        or (halves and cut == "padded, 2 rows" and bool(shape) and Case(shape=shape).dealt_to == 4)
    )


def covering(sets: Sequence[tuple[str, ...]], factors: Mapping[str, Sequence[str]] = FACTORS) -> list[Case]:
    """Cases that hold every combination of choices of each set of factors, and few of them, by a greedy search."""
    wanted = {
        frozenset(zip(names, values, strict=True))
        for names in sets
        for values in itertools.product(*(factors[name] for name in names))
        if not is_refused(zip(names, values, strict=True))
    }
    rng, cases = random.Random(0), []
    while wanted:
        choices = dict(min(wanted, key=sorted))
        for name in rng.sample(order := [n for n in FACTORS if n not in choices], len(order)):
            concerned = [w for w in wanted if any(n == name for n, _ in w)]
            gains = {}
            for value in factors[name]:
                chosen = {**choices, name: value}
                # Sets that are fulfilled, and those that still can be.
                done = sum(w <= chosen.items() for w in concerned)
                hopeful = sum(all(chosen.get(n, v) == v for n, v in w) for w in concerned)
                if not is_refused(chosen.items()):
                    gains[value] = (done, hopeful + rng.random())
            choices[name] = max(gains, key=lambda value: gains[value])
        cases.append(Case(**choices))
        wanted = {w for w in wanted if not w <= choices.items()}
    return cases


def every(strength: int) -> list[Case]:
    """Cases that hold every combination of that many choices."""
    return covering(list(itertools.combinations(FACTORS, strength)))


def in_ci() -> list[Case]:
    """Every pair of choices of how the engine is set up, and every objective once.

    Without sequence parallelism, which has tests of its own: test_sequence_parallel.py.
    """
    engine = ["shape", "storage", "gathering", "precision", "head", "cut", "teacher", "steps"]
    whole = {**FACTORS, "shape": tuple(name for name in SHAPES if "sequence parallel" not in name)}
    others = [(name,) for name in FACTORS]
    return covering([*itertools.combinations(engine, 2), *others], whole)
