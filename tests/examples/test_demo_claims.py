"""The README's numbers of the demo are those of the committed counts."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from examples.demo.run import SAMPLES
from recipe.hdpo.evaluation.passk import pass_at_k

ROOT = Path(__file__).parents[2]
COUNTS = ROOT / "docs/results/demo"
DEMO = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What the demo shows")[2].partition("\n## ")[0]
ARMS = {"base model": "base", "GRPO": "grpo", "HDPO": "hdpo"}


def mean(counts: pd.DataFrame, arm: str, metric: str) -> str:
    """``greedy`` or ``pass@k`` over problems, as the README prints it."""
    if metric == "greedy":
        return f"{counts[f'{arm}_greedy'].mean():.3f}"
    k = int(metric.removeprefix("pass@"))
    return f"{pass_at_k(SAMPLES, counts[f'{arm}_of_{SAMPLES}'].to_numpy(), k).mean():.3f}"


def test_the_readmes_demo_table_holds_the_means_of_the_counts() -> None:
    counts = pd.read_csv(COUNTS / "counts.csv")
    assert len(counts) == 200
    table = [line for line in DEMO.splitlines() if line.startswith(tuple(f"| {label} |" for label in ARMS))]
    assert len(table) == 3
    for label, *cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in table):
        by_terms = [mean(counts[counts.terms == terms], ARMS[label], "pass@8") for terms in range(2, 7)]
        assert cells == [*by_terms, *(mean(counts, ARMS[label], m) for m in ("pass@8", "pass@1", "greedy"))], label


@pytest.mark.parametrize("which", ["first", "second"])
def test_what_the_readme_says_of_base_models_made_on_two_machines_is_that_of_their_counts(which: str) -> None:
    counts = pd.read_csv(COUNTS / "own_base_model" / f"{which}.csv")
    said = re.findall(r"pass@8 (0\.\d{3}) to (0\.\d{3})", DEMO)[["first", "second"].index(which)]
    assert list(said) == [mean(counts, arm, "pass@8") for arm in ("base", "hdpo")]


def test_from_the_second_of_these_base_models_no_test_problem_beyond_3_numbers_was_solved() -> None:
    counts = pd.read_csv(COUNTS / "own_base_model/second.csv")
    beyond = counts[counts.terms > 3]
    assert len(beyond) == 120 and beyond[["hdpo_greedy", "hdpo_of_8"]].to_numpy().sum() == 0


def test_the_readmes_pass_1_of_single_numbers_of_terms_is_that_of_the_counts() -> None:
    counts, first = pd.read_csv(COUNTS / "counts.csv"), pd.read_csv(COUNTS / "own_base_model/first.csv")
    at = {t: {a: mean(counts[counts.terms == t], a, "pass@1") for a in ARMS.values()} for t in (3, 4)}
    assert f"sums of 4 more certain (pass@1 {at[4]['base']} to {at[4]['grpo']})" in DEMO
    assert f"some sums of 3** (pass@1 {at[3]['base']} to {at[3]['hdpo']})" in DEMO
    assert f"what GRPO gains at 4 ({at[4]['hdpo']})" in DEMO
    fell = [mean(first[first.terms == 3], arm, "pass@1") for arm in ("base", "hdpo")]
    assert f"the sums of 3 fell from {fell[0]} to {fell[1]} at pass@1" in DEMO
