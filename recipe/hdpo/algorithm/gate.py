"""Which correct privileged rollouts are not learnt from: thresholds on signs of copying (``hdpo.privileged.gate``).

A rollout has one reason to be dropped, the first of :data:`REASONS` that holds. The reliance is not among them: it is
known of a trajectory only when it is trained on (:mod:`recipe.hdpo.algorithm.token_controls`), where a weight of 0
takes the trajectory out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

# A response with fewer tokens than this share of the worked solution's is counted as one without work.
WORKLESS_SHARE = 0.5

# In the order in which they are asked.
REASONS = ("speaks", "run_share", "length_share", "length_unknown", "steps", "step_check_error")
# Of a trajectory that the actor's update left out, and not the agent-loop worker.
RELIANCE = "reliance"
# What became of the step check of a response.
NOT_CHECKED, CHECKED, FAILED = "off", "done", "failed"


@dataclass(frozen=True)
class Signs:
    """The signs of copying in one response, ready for JSON.

    Attributes:
        speaks: whether it speaks of a reference.
        run: tokens of its longest run that stands in the privileged text as well; None where there is no such text.
        run_share: that run's share of the response's tokens; None as ``run``.
        length_share: its tokens over the worked solution's; None where the row has no worked solution.
        steps: share of its steps that are valid; None without any step, and where nothing was checked.
        step_check: :data:`NOT_CHECKED`, :data:`CHECKED` or :data:`FAILED`.
    """

    speaks: bool
    run: int | None
    run_share: float | None
    length_share: float | None
    steps: float | None = None
    step_check: str = NOT_CHECKED

    @property
    def workless(self) -> bool | None:
        """Whether it is far shorter than the worked solution; None where there is none."""
        return None if self.length_share is None else self.length_share < WORKLESS_SHARE


@dataclass(frozen=True)
class Gate:
    """``hdpo.privileged.gate``: what is dropped. With all of it off nothing is, as in the paper.

    Attributes:
        speaks: drop what speaks of a reference.
        run_share: the greatest share that may be one run of the privileged text.
        length_share: the least length over the worked solution's.
        steps: the least share of valid steps.
        no_steps: the share of valid steps that a response without any step counts as.
        reliance: the least mean of ln q(y_t) - ln p(y_t), of student and teacher, in nats a token.

    Raises:
        ValueError: a threshold that is out of range.
    """

    speaks: bool
    run_share: float | None
    length_share: float | None
    steps: float | None
    no_steps: float
    reliance: float | None

    def __post_init__(self) -> None:
        ranges = {
            "run_share": (0.0 <= (self.run_share or 0.0) < 1.0, "a share below 1, above which a response is dropped"),
            "length_share": (self.length_share is None or self.length_share > 0.0, "above 0"),
            "steps": (self.steps is None or 0.0 < self.steps <= 1.0, "a share above 0 and at most 1"),
            "no_steps": (0.0 <= self.no_steps <= 1.0, "a share from 0 to 1"),
            "reliance": (
                (self.reliance or 0.0) <= 0.0,
                "0 or below, in nats a token: a response is nearly always less likely without the solution",
            ),
        }
        for name, (holds, range_) in ranges.items():
            if not holds:
                null = "" if name == "no_steps" else "null (off) or "
                raise ValueError(f"hdpo.privileged.gate.{name}={getattr(self, name)} must be {null}{range_}")

    @property
    def asks(self) -> list[str]:
        """Names of the thresholds that are on."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "no_steps"}
        return [name for name, value in values.items() if value is not None and value is not False]


def reason_to_drop(signs: Signs, gate: Gate) -> str | None:
    """The first of :data:`REASONS` for which a response is not learnt from; None for one that is.

    What a threshold asks for and is not known drops it too: a row without a worked solution under ``length_share``, and
    a step check that failed under ``steps``.
    """
    steps = gate.no_steps if signs.steps is None else signs.steps
    found = {
        "speaks": gate.speaks and signs.speaks,
        "run_share": gate.run_share is not None and (signs.run_share or 0.0) > gate.run_share,
        "length_share": None not in (gate.length_share, signs.length_share) and signs.length_share < gate.length_share,  # type: ignore[operator]
        "length_unknown": gate.length_share is not None and signs.length_share is None,
        "steps": gate.steps is not None and signs.step_check != FAILED and steps < gate.steps,
        "step_check_error": gate.steps is not None and signs.step_check == FAILED,
    }
    return next((reason for reason in REASONS if found[reason]), None)
