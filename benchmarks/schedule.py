"""What each schedule of privileged rollouts would cost: a simulation, without a model.

    python -m benchmarks.schedule                                      # made-up lengths, several length limits
    python -m benchmarks.schedule --rollouts DIR --model MODEL --metrics FILE.jsonl     # lengths and times of a run

DIR is a run's trainer.rollout_data_dir, MODEL its model (for the tokenizer), FILE.jsonl verl's file logger.

What is assumed, and the sums, are in recipe/hdpo/algorithm/schedule_cost.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipe.hdpo.algorithm.schedule_cost import Step, ratios


@dataclass(frozen=True)
class Scenario:
    """Made-up lengths: lognormal with these medians in tokens, cut at ``limit``; failures are longer than successes.

    Attributes:
        limit: data.max_response_length.
        solved, failed, privileged: median tokens of a rollout of each kind.
        rest: seconds of a step that are no rollout.
    """

    limit: int
    solved: int
    failed: int
    privileged: int
    rest: float


SCENARIOS = (
    Scenario(2048, 500, 900, 500, 12.0),
    Scenario(2048, 500, 900, 500, 24.0),
    Scenario(8192, 2500, 5000, 2500, 60.0),
    Scenario(8192, 2500, 5000, 2500, 120.0),
    Scenario(16384, 6000, 12000, 6000, 200.0),
)
SIGMA, MS_PER_TOKEN = 0.5, 8.0


def made_up(
    case: Scenario, *, cliffs: float, prompts: int, rollouts: int, shown: int, steps: int, seed: int
) -> tuple[list[Step], list[np.ndarray]]:
    """Steps of a scenario, and their cliffs' privileged rollouts.

    Args:
        cliffs: chance that a prompt is one; the others are solved with a chance between 0.2 and 1.
        prompts, rollouts, shown: of a step, of a prompt (K), and privileged ones of a cliff (J).
    """
    rng = np.random.default_rng(seed)

    def lengths(median: float | np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        return np.minimum(np.exp(rng.normal(np.log(median), SIGMA, size)), case.limit)

    found, privileged = [], []
    for _ in range(steps):
        cliff = rng.random(prompts) < cliffs
        chance = np.where(cliff, 0.0, rng.uniform(0.2, 1.0, prompts))
        solved = rng.random((prompts, rollouts)) < chance[:, None]
        tokens = lengths(np.where(solved, case.solved, case.failed), (prompts, rollouts))
        found.append(Step(tokens.max(1), cliff))
        privileged.append(lengths(case.privileged, (int(cliff.sum()), shown)).max(1, initial=0))
    return found, privileged


def of_run(rollouts: Path, model: str, success: float, shown: int, seed: int) -> tuple[list[Step], list[np.ndarray]]:
    """A run's steps. Privileged rollouts are drawn from those that it kept: the others are not on disk.

    Raises:
        ValueError: the run kept no trajectory.
    """
    from transformers import AutoTokenizer

    from recipe.hdpo import transfer
    from recipe.hdpo.tracking.kept_text import kept_files

    tokenizer = AutoTokenizer.from_pretrained(model)

    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    files = [file.read_text(encoding="utf-8").splitlines() for file in kept_files(rollouts)]
    kept = np.array([tokens(json.loads(line)[transfer.RESPONSE]) for lines in files for line in lines])
    if not kept.size:
        raise ValueError(f"{rollouts} has no kept trajectory (hdpo_kept/STEP.jsonl), so lengths are not known")
    rng, found, privileged = np.random.default_rng(seed), [], []
    for file in sorted(rollouts.glob("*.jsonl"), key=lambda file: int(file.stem)):
        groups: dict[str, list[tuple[int, float]]] = {}
        for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            groups.setdefault(row["input"], []).append((tokens(row["output"]), row["score"]))
        cliff = np.array([all(score < success for _, score in group) for group in groups.values()])
        found.append(Step(np.array([max(length for length, _ in group) for group in groups.values()]), cliff))
        privileged.append(rng.choice(kept, (int(cliff.sum()), shown)).max(1, initial=0))
    return found, privileged


def times_of_run(metrics: Path, steps: Sequence[Step]) -> tuple[float, float]:
    """Milliseconds per token of the rollout phase, and seconds of the rest of a step: medians over a run's steps."""
    rows = [json.loads(line)["data"] for line in metrics.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "timing_s/gen" in row]
    waits = [row["timing_s/gen"] - row.get("hdpo/timing_s/privileged_wait", 0.0) for row in rows]
    rest = statistics.median(row["timing_s/step"] - row["timing_s/gen"] for row in rows)
    return 1000 * statistics.median(waits) / statistics.median(float(step.longest.max()) for step in steps), rest


def main() -> None:
    """Print both schedules' step times over GRPO's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rollouts", type=Path, help="a run's trainer.rollout_data_dir; without it lengths are made up"
    )
    parser.add_argument("--model", help="the run's model, for its tokenizer")
    parser.add_argument("--metrics", type=Path, help="the run's metrics of verl's file logger")
    parser.add_argument("--success-reward", type=float, default=1.0, help="hdpo.success_reward of the run (default 1)")
    parser.add_argument("--shown", type=int, default=1, help="J, privileged rollouts of a cliff (default 1)")
    parser.add_argument("--cliffs", type=float, default=0.25, help="share of cliffs, where lengths are made up")
    args = parser.parse_args()
    if args.rollouts and not (args.model and args.metrics):
        parser.error("--rollouts needs --model and --metrics")
    print("step time over GRPO's:  same_step  next_step")
    if args.rollouts:
        steps, privileged = of_run(args.rollouts, args.model, args.success_reward, args.shown, seed=0)
        ms, rest = times_of_run(args.metrics, steps)
        same, following = ratios(steps, privileged, ms, rest)
        print(f"{len(steps):>4} steps of the run   {same:9.3f}  {following:9.3f}")
        print(f"({ms:.2f} ms a token, {rest:.1f} s of a step that are no rollout)")
        return
    size = dict(prompts=32, rollouts=16, shown=args.shown, steps=400)
    for case in SCENARIOS:
        same, following = ratios(*made_up(case, cliffs=args.cliffs, seed=0, **size), MS_PER_TOKEN, case.rest)
        print(f"limit {case.limit:>6}, rest {case.rest:>4.0f} s {same:9.3f}  {following:9.3f}")


if __name__ == "__main__":
    main()
