"""How often the intervals of the evaluation contain the truth, on simulated results whose truth is known.

    python -m benchmarks.coverage                               # 2,000 simulations of every scenario: about 10 minutes
    python -m benchmarks.coverage --simulations 10000 --out coverage.json

A scenario draws the results of P problems, as an evaluation has them, many times; its coverage is the share of
simulations in which the 95 % interval contains the mean over all problems of the same kind. Problems have success
probabilities from a Beta distribution, whose moments give the truth without simulation; pass@k is the unbiased estimate
from 8 samples. Beta(0.98, 0.02) is a model near the ceiling: it solves 98 of 100 problems nearly always, and the others
hardly ever. Where the interval counts half a problem that was never seen (recipe/hdpo/evaluation/intervals.py), the
bootstrap without it stands beside it: BCa, and of a paired difference the outer ends of BCa and of the percentiles.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betaln
from tqdm import tqdm

from recipe.hdpo.evaluation import intervals
from recipe.hdpo.evaluation.intervals import Interval, Support, two_level_difference, two_level_mean
from recipe.hdpo.evaluation.passk import pass_at_k

SAMPLES = 8
SHARE = Support(0.0, 1.0)
Draw = Callable[[np.random.Generator], list[np.ndarray]]


@dataclass(frozen=True)
class Scenario:
    """Results of a known truth.

    Attributes:
        name: what is drawn.
        draw: one array of shape (S, P) for a mean, two for a paired difference (first minus second).
        truth: the mean, or the difference of means, over all problems of the kind.
        support: of one problem's value, or of its difference; None without bounds.
        unseen: the interval counts an unseen half problem, so that there is one without it to compare with.
        paired_runs: the runs of a difference are compared in pairs.
    """

    name: str
    draw: Draw
    truth: float
    support: Support | None
    unseen: bool = True
    paired_runs: bool = False

    def interval(self, arms: Sequence[np.ndarray], seed: int, unseen: bool = True) -> Interval:
        """The interval as the evaluation makes it, or without the unseen half problem."""
        support = self.support if unseen or self.support is None else self.support._replace(at_ends=False)
        if len(arms) == 1:
            return two_level_mean(arms[0], seed, support)
        return two_level_difference(arms[0], arms[1], seed, support, paired_runs=self.paired_runs)


def measure(scenario: Scenario, simulations: int, plain: bool = False) -> dict[str, Any]:
    """Coverage and mean width of a scenario's intervals.

    Args:
        simulations: how often results are drawn.
        plain: measure the bootstrap without the unseen half problem too.

    Raises:
        AssertionError: an interval that does not contain its own estimate.
    """
    rng = np.random.default_rng(11)
    kinds = ("used", "plain") if plain else ("used",)
    hits, widths = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0.0)
    for i in range(simulations):
        arms = scenario.draw(rng)
        for kind in kinds:
            found = scenario.interval(arms, i, unseen=kind == "used")
            assert found.low is not None and found.high is not None
            assert found.low <= found.estimate <= found.high
            # A mean of rounded numbers may miss an end in its last digit.
            hits[kind] += found.low - 1e-12 <= scenario.truth <= found.high + 1e-12
            widths[kind] += found.high - found.low
    runs, problems = arms[0].shape
    figures: dict[str, Any] = {"name": scenario.name, "runs": runs, "problems": problems}
    return figures | {
        kind: {"coverage": hits[kind] / simulations, "width": widths[kind] / simulations} for kind in kinds
    }


def scenarios() -> list[Scenario]:
    """All of them: means of one run, paired differences of one run each, means and differences of several runs."""
    return [*_means(), _normal(1, 1, 0.0), *_differences(), _normal(2, 1, 0.0), *_several_runs()]


def _means() -> list[Scenario]:
    found = [_greedy(rate, problems) for rate, problems in ((0.4, 100), (0.9, 50), (0.98, 200))]
    found += [_mean((0.5, 0.8), k=1, problems=100), _mean((0.05, 0.95), k=1, problems=100)]
    return found + [_mean((0.98, 0.02), k, problems) for k, problems in ((1, 100), (4, 50), (4, 100), (4, 200))]


def _greedy(rate: float, problems: int) -> Scenario:
    return Scenario(
        f"greedy accuracy {rate:g}", lambda rng: [rng.binomial(1, rate, (1, problems)).astype(float)], rate, SHARE
    )


def _mean(shape: tuple[float, float], k: int, problems: int, runs: int = 1) -> Scenario:
    def draw(rng: np.random.Generator) -> list[np.ndarray]:
        return [_passk(rng, np.broadcast_to(rng.beta(*shape, problems), (runs, problems)), k)]

    return Scenario(f"pass@{k}, Beta{shape}", draw, _true_passk(shape, 1.0, k), SHARE)


def _differences() -> list[Scenario]:
    shares = [(0.01, 0.01), (0.02, 0.02), (0.05, 0.05), (0.0, 0.04), (0.02, 0.06)]
    found = [_few_differ(lost, won, 100) for lost, won in shares]
    found += [_pair((0.5, 0.8), 1.1, k=1), _pair((0.05, 0.95), 0.8, k=8)]
    return [*found, _pair((0.98, 0.02), 1.5, k=4), _pair((0.98, 0.02), 2.0, k=1)]


def _few_differ(lost: float, won: float, problems: int, runs: int = 1) -> Scenario:
    """Problems that one arm solves and the other does not, in every run alike."""

    def draw(rng: np.random.Generator) -> list[np.ndarray]:
        difference_P = rng.choice([-1.0, 0.0, 1.0], problems, p=[lost, 1.0 - lost - won, won])
        return [np.broadcast_to(difference_P, (runs, problems)), np.zeros((runs, problems))]

    return Scenario(
        f"greedy, {lost:.0%} lost and {won:.0%} won", draw, won - lost, SHARE.difference(), unseen=runs == 1
    )


def _pair(shape: tuple[float, float], power: float, k: int, problems: int = 100) -> Scenario:
    """Arms with success probabilities p and p^power."""

    def draw(rng: np.random.Generator) -> list[np.ndarray]:
        p = rng.beta(*shape, (1, problems))
        return [_passk(rng, p, k), _passk(rng, p**power, k)]

    truth = _true_passk(shape, 1.0, k) - _true_passk(shape, power, k)
    return Scenario(f"pass@{k}, Beta{shape}, p and p^{power:g}", draw, truth, SHARE.difference())


def _several_runs() -> list[Scenario]:
    found = [_normal(1, runs, run_sd) for runs in (3, 5) for run_sd in (0.0, 0.04)]
    found += [_normal(2, 3, 0.03), _few_differ(0.0, 0.04, 100, runs=3)]
    found += [_mean((0.5, 0.8), 1, 100, runs=3), _mean((0.98, 0.02), 4, 100, runs=3)]
    return [*found, *(_pairs(runs, own_sd) for runs, own_sd in ((2, 0.02), (3, 0.02), (3, 0.0)))]


def _normal(arms: int, runs: int, run_sd: float) -> Scenario:
    """Y = run + problem + rest, all normal and without bounds, as lengths are."""

    def draw(rng: np.random.Generator) -> list[np.ndarray]:
        problem = rng.normal(0, 0.4, 100)
        return [rng.normal(0, run_sd, (runs, 1)) + problem + rng.normal(0, 0.2, (runs, 100)) for _ in range(arms)]

    kind = "normal" if arms == 1 else "normal, difference"
    return Scenario(f"{kind}, runs' standard deviation {run_sd:g}", draw, 0.0, None, unseen=False)


def _pairs(runs: int, own_sd: float) -> Scenario:
    """Two arms whose runs share the luck of their seeds, beside some of their own."""

    def draw(rng: np.random.Generator) -> list[np.ndarray]:
        problem, shared = rng.normal(0, 0.4, 100), rng.normal(0, 0.1, (runs, 1))
        own = (rng.normal(0, own_sd, (runs, 1)) + rng.normal(0, 0.2, (runs, 100)) for _ in range(2))
        return [shared + problem + each for each in own]

    name = f"normal, pairs of runs, their own standard deviation {own_sd:g} beside 0.1"
    return Scenario(name, draw, 0.0, None, unseen=False, paired_runs=True)


def _passk(rng: np.random.Generator, p_SP: np.ndarray, k: int) -> np.ndarray:
    return pass_at_k(SAMPLES, rng.binomial(SAMPLES, p_SP), k)


def _true_passk(shape: tuple[float, float], power: float, k: int) -> float:
    """E[1 - (1 - p^power)^k] for p ~ Beta(shape): by the binomial theorem from E[p^s] = B(a + s, b) / B(a, b)."""
    a, b = shape
    moments = [math.exp(betaln(a + power * j, b) - betaln(a, b)) for j in range(k + 1)]
    return 1.0 - sum(math.comb(k, j) * (-1) ** j * moment for j, moment in enumerate(moments))


def table(found: Sequence[dict[str, Any]]) -> str:
    """The figures as a Markdown table; "without" is the interval without the unseen half problem."""
    lines = ["| results | runs | problems | coverage | mean width | without: coverage | without: mean width |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for figures in found:
        cells = [figures["name"], str(figures["runs"]), str(figures["problems"])]
        for kind in ("used", "plain"):
            part = figures.get(kind)
            cells += [f"{part['coverage']:.3f}", f"{part['width']:.3f}"] if part else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure every scenario and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000, help="of each scenario (default 2000)")
    parser.add_argument(
        "--resamples", type=int, default=1000, help="of each interval (default 1000; reports use 10000)"
    )
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    args = parser.parse_args()
    intervals.RESAMPLES = args.resamples
    found = [measure(s, args.simulations, plain=s.unseen) for s in tqdm(scenarios(), desc="scenarios")]
    if args.out:
        about = {"simulations": args.simulations, "resamples": args.resamples, "confidence": intervals.CONFIDENCE}
        args.out.write_text(json.dumps({**about, "scenarios": found}, indent=2) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
