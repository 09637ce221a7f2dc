"""Which runs a study consists of, read from a YAML file beside this one, and which learning rate each arm got."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from examples.study.tasks import TASKS, Sizes

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """One training run and its evaluation.

    Attributes:
        phase: "tune" (its seed is used for nothing else) or "report".
        arm: a name of the plan's ``arms``, or "base".
        lr: learning rate of the actor.
        seed: of data order and sampling.
    """

    phase: str
    arm: str
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """Names the run's file and folder."""
        return f"{self.phase}-{self.arm}-lr{self.lr:g}-seed{self.seed}" if self.trains else f"{self.phase}-{self.arm}"

    @property
    def trains(self) -> bool:
        """Whether there is something to train: not for the base model."""
        return self.arm != BASE

    @property
    def problems(self) -> str:
        """The set of problems that it is evaluated on: those that learning rates are chosen by are not reported."""
        return "tune" if self.phase == "tune" else "test"


BASE = "base"
# The untrained model on either set of problems.
BASE_RUNS = (Run("tune", BASE, 0.0, 0), Run("report", BASE, 0.0, 0))


@dataclass(frozen=True)
class Plan:
    """A study. See ``sums.yaml`` for the meaning of the fields."""

    name: str
    steps: int
    learning_rates: tuple[float, ...]
    tuning_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    select_by: str
    base_model: tuple[str, ...]
    tuning_problems: int
    test_problems: int
    samples: int
    ks: tuple[int, ...]
    common: tuple[str, ...]
    baselines: tuple[str, ...]
    arms: dict[str, tuple[str, ...]]
    rates: dict[str, float | str] = field(default_factory=dict)
    note: str = ""
    task: str = "sums"
    untrained_problems: int = 0
    one_seed: tuple[str, ...] = ()
    tuning_steps: int | None = None

    @property
    def sizes(self) -> Sizes:
        """How many problems the data has."""
        return Sizes(self.tuning_problems, self.test_problems, self.untrained_problems)

    def tuning_runs(self) -> list[Run]:
        """Every arm with every learning rate; whole rounds over the arms, so that an unfinished study is fair. None
        where there is only one rate to choose, and none of arms whose rate was chosen elsewhere."""
        if len(self.learning_rates) == 1:
            return []
        arms = [arm for arm in dict.fromkeys(map(self.rate_of, self.arms)) if arm not in self.rates]
        return [Run("tune", arm, lr, seed) for seed in self.tuning_seeds for lr in self.learning_rates for arm in arms]

    def rate_of(self, arm: str) -> str:
        """The arm whose learning rate an arm takes: itself, or the one that ``rates`` names."""
        rate = self.rates.get(arm)
        return rate if isinstance(rate, str) else arm

    def base_runs(self) -> list[Run]:
        """The untrained model; on the tuning problems only where learning rates are chosen by them."""
        return [run for run in BASE_RUNS if run.phase == "report" or self.tuning_runs()]

    def report_runs(self, chosen: Mapping[str, float]) -> list[Run]:
        """Every arm with every seed, or with the first alone, at the learning rate chosen for it; whole rounds over
        the arms, so that what has one seed comes last in the first."""
        arms = sorted(self.arms, key=lambda arm: arm in self.one_seed)
        return [
            Run("report", arm, chosen[arm], seed)
            for seed in self.seeds
            for arm in arms
            if seed == self.seeds[0] or arm not in self.one_seed
        ]

    def steps_of(self, run: Run) -> int:
        """Training steps of a run: those that tune may be shorter."""
        return self.tuning_steps if run.phase == "tune" and self.tuning_steps else self.steps

    def overrides(self, run: Run) -> list[str]:
        """Hydra overrides of a run on top of ``examples/cpu_demo.sh``; none of the base model."""
        if not run.trains:
            return []
        own = [f"actor_rollout_ref.actor.optim.lr={run.lr:g}", f"data.seed={run.seed}", f"hdpo.rollout_seed={run.seed}"]
        return [*self.common, *self.arms[run.arm], *own]


def read_plan(name: str) -> Plan:
    """The plan in ``examples/study/<name>.yaml``.

    Raises:
        ValueError: unknown or missing fields, an unknown task, seeds that serve both phases, no arm, a metric that is
            not measured, a rate of no arm or that is none of the learning rates.
    """
    node: Any = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    known = {f.name for f in fields(Plan)} - {"name"}
    optional = {f.name for f in fields(Plan) if f.default is not MISSING or f.default_factory is not MISSING}
    wrong = (set(node) - known) | (known - optional - set(node))
    if wrong:
        raise ValueError(f"{name}.yaml: unknown or missing fields {sorted(wrong)}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in node.items()}
    values["arms"] = {arm: tuple(overrides or ()) for arm, overrides in node["arms"].items()}
    plan = Plan(name=name, **values)
    if set(plan.seeds) & set(plan.tuning_seeds):
        raise ValueError(f"{name}.yaml: seeds {set(plan.seeds) & set(plan.tuning_seeds)} are tuned on and reported")
    if plan.task not in TASKS or bool(TASKS[plan.task].untrained) != bool(plan.untrained_problems):
        raise ValueError(
            f"{name}.yaml: task {plan.task} with {plan.untrained_problems} untrained_problems; there are "
            f"{list(TASKS)}, and of these words has problems of a family that nothing is trained on"
        )
    if not plan.arms or BASE in plan.arms:
        raise ValueError(f"{name}.yaml: no arms, or one called {BASE}, which is the untrained model")
    unknown = [arm for arm in (*plan.baselines, *plan.one_seed) if arm not in plan.arms]
    if unknown:
        raise ValueError(f"{name}.yaml: baselines or one_seed name {unknown}, which are no arms")
    allowed = {*plan.learning_rates, *(set(plan.arms) - {arm for arm, rate in plan.rates.items() if rate in plan.arms})}
    if not set(plan.rates) <= set(plan.arms) or not set(plan.rates.values()) <= allowed:
        raise ValueError(
            f"{name}.yaml: rates {plan.rates} name something that is no arm, or a rate that is none of the "
            "learning_rates nor an arm with a rate of its own"
        )
    metrics = ["greedy", *(f"pass@{k}" for k in plan.ks)]
    if plan.select_by not in metrics or not all(1 <= k <= plan.samples for k in plan.ks):
        raise ValueError(f"{name}.yaml: select_by must be one of {metrics}, ks from 1 to samples={plan.samples}")
    if len(plan.learning_rates) > 1 and not plan.tuning_seeds:
        raise ValueError(f"{name}.yaml: several learning_rates and no tuning_seeds to choose by")
    return plan


def choose_learning_rates(plan: Plan, scores: Mapping[Run, float]) -> dict[str, float]:
    """For every arm the learning rate with the best mean score over the tuning seeds; the lower one of equals. Or the
    one that the plan has from elsewhere, or that of the arm which the plan names.

    Args:
        scores: of every tuning run, higher is better.

    Raises:
        ValueError: a tuning run has no score yet.
    """
    missing = [run.name for run in plan.tuning_runs() if run not in scores]
    if len(plan.learning_rates) == 1:
        return dict.fromkeys(plan.arms, plan.learning_rates[0])
    if missing:
        raise ValueError(f"{len(missing)} tuning runs are not done: {', '.join(missing[:3])}")
    sources = dict.fromkeys(map(plan.rate_of, plan.arms))
    rates = {
        arm: plan.rates[arm]
        if arm in plan.rates
        else max((_mean(plan, scores, arm, lr), -lr, lr) for lr in plan.learning_rates)[-1]
        for arm in sources
    }
    return {arm: float(rates[plan.rate_of(arm)]) for arm in plan.arms}


def _mean(plan: Plan, scores: Mapping[Run, float], arm: str, lr: float) -> float:
    values: Iterable[float] = [scores[Run("tune", arm, lr, seed)] for seed in plan.tuning_seeds]
    return sum(values) / len(plan.tuning_seeds)
