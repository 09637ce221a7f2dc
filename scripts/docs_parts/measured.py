"""Numbers of the demo (`docs/results/demo`) and of the benchmarks (`docs/results/benchmarks`)."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import leak_signs, saturation
from examples.demo.run import SAMPLES
from recipe.hdpo.evaluation.intervals import Support, two_level_difference
from recipe.hdpo.evaluation.passk import pass_at_k
from scripts.docs_parts.marks import table
from scripts.docs_parts.study import RESULTS

ARMS = {"base model": "base", "GRPO": "grpo", "HDPO": "hdpo"}
# Base models that an earlier demo made on the spot, on two kinds of processor.
OWN = {"first": "own_base_model/first.csv", "second": "own_base_model/second.csv"}
VARIANTS = {"this": "ours", "plain log-softmax JSD": "plain", "verl `compute_forward_kl_topk`": "verl_full"}
VARIANTS |= {"verl, chunked": "verl_chunked"}


@functools.cache
def counts(which: str = "") -> pd.DataFrame:
    """Counts by test problem: of the demo, or of the base model ``first`` or ``second`` that was made on the spot."""
    return pd.read_csv(RESULTS / "demo" / OWN.get(which, "counts.csv"))


def _mean(found: pd.DataFrame, arm: str, metric: str, terms: str) -> str:
    if terms:
        found = found[found.terms == int(terms.removeprefix("terms="))]
    if metric == "greedy":
        return f"{found[f'{arm}_greedy'].mean():.3f}"
    k = int(metric.removeprefix("pass@"))
    return f"{pass_at_k(SAMPLES, found[f'{arm}_of_{SAMPLES}'].to_numpy(), k).mean():.3f}"


def demo(arm: str, metric: str, terms: str = "") -> str:
    """Mean over the demo's test problems, or over those of ``terms=N``."""
    return _mean(counts(), arm, metric, terms)


def own(which: str, arm: str, metric: str, terms: str = "") -> str:
    """The same of a base model that was made on the spot."""
    return _mean(counts(which), arm, metric, terms)


def demo_table() -> str:
    """The demo's accuracy by number of terms."""
    body = [
        [label, *(demo(arm, "pass@8", f"terms={n}") for n in range(2, 7))]
        + [demo(arm, metric) for metric in ("pass@8", "pass@1", "greedy")]
        for label, arm in ARMS.items()
    ]
    head = ["pass@8 by number of terms", *map(str, range(2, 7)), "all", "pass@1, all", "greedy, all"]
    return table(head, body)


def _values(arm: str, metric: str) -> np.ndarray:
    """The demo's metric of each test problem."""
    found = counts()
    if metric == "greedy":
        return found[f"{arm}_greedy"].to_numpy(dtype=float)
    solved, k = found[f"{arm}_of_{SAMPLES}"].to_numpy(), int(metric.removeprefix("pass@"))
    return np.array([float(pass_at_k(SAMPLES, int(right), k)) for right in solved])


def demo_differences() -> str:
    """Paired differences of the demo, with intervals over problems, as `compare` makes them."""
    metrics = ("greedy", "pass@1", "pass@4", "pass@8")
    body = []
    for label, arm, baseline in (("HDPO - GRPO", "hdpo", "grpo"), ("GRPO - base model", "grpo", "base")):
        cells = []
        for metric in metrics:
            pair = (_values(arm, metric)[None], _values(baseline, metric)[None])
            found = two_level_difference(*pair, seed=0, support=Support(0.0, 1.0).difference())
            cells.append(f"{found.estimate:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
        body.append([label, *cells])
    return table(["difference, all problems", *metrics], body)


def _json(path: str) -> Any:
    return json.loads((RESULTS / path).read_text())


def overhead(name: str, answers: str = "short") -> str:
    """A figure of `benchmarks/overhead.py`, of ``short`` or ``long`` answers: milliseconds of a part of the step, or a
    ratio to GRPO's step. ``beside_update_KIND`` is what the rollouts and everything else take together."""
    found = _json({"short": "benchmarks/overhead.json", "long": "benchmarks/overhead_long.json"}[answers])
    of = name.removeprefix("beside_update_")
    value = found[name] if of == name else found[f"rollout_phase_{of}"] + found[f"rest_{of}"]
    if name.startswith("steps"):
        return f"{value:.0f}"
    return f"{value:.3f}" if name.startswith("ratio") else f"{100 * value:.0f}" if "rate" in name else _ms(value)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.0f}"


def jsd_table() -> str:
    """Time and extra memory of the loss and its backward, beside other ways to compute it."""
    body = []
    for rows in ("2048", "4096"):
        medians = _json(f"benchmarks/jsd_{rows}.json")["medians"]
        body.append([f"{int(rows):,}", *(_jsd(medians.get(variant)) for variant in VARIANTS.values())])
    return table(["rows", *VARIANTS], body)


def jsd_head_table() -> str:
    """Time and extra memory from hidden states on: whole logits, and the fused head."""
    body = []
    for rows in ("1024", "2048"):
        medians = _json(f"benchmarks/jsd_head_{rows}.json")["medians"]
        body.append([f"{int(rows):,}", _jsd(medians["head_logits"]), _jsd(medians["head_fused"])])
    return table(["rows", "head, logits, this", "fused head"], body)


def _jsd(median: dict[str, float] | None) -> str:
    if median is None:
        return "not run"
    return f"{median['seconds']:.3g} s, {median['extra_bytes'] / 2**20:,.0f} MiB"


def jsd_ratio(rows: str, name: str) -> str:
    """A ratio of `benchmarks/jsd.py`."""
    return f"{_json(f'benchmarks/jsd_{rows}.json')['ratios'][name]:.2f}"


def saturation_table() -> str:
    """Gradients of the kept tokens of a run, by their divergence."""
    rows = json.loads((RESULTS / "benchmarks" / "saturation.json").read_text())["rows"]
    return table(list(saturation.HEAD), [saturation.cells(row) for row in rows])


def saturated(name: str, what: str) -> str:
    """Of `benchmarks/saturation.py`'s last row: share of the ``tokens``, or of the ``divergence``; or its share of the
    tokens in the ``first`` or ``last`` quarter of the steps, in percent."""
    found = _json(f"benchmarks/{name}.json")
    if what in ("tokens", "divergence"):
        row = found["rows"][-1]
        share = row["tokens"] / found["tokens"] if what == "tokens" else row["share_of_divergence"]
        return f"{100 * share:.0f}"
    quarter = found["quarters"][0 if what == "first" else -1]
    return f"{100 * quarter['saturated'] / quarter['tokens']:.1f}"


def leak_signs_table() -> str:
    """`benchmarks/leak_signs.py`: what each sign marks of the trajectories that were read and labelled."""
    return table(*leak_signs.table(leak_signs.read_trajectories()))
