"""The README's and the result pages' numbers are those of the committed result files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from examples.study.plan import read_plan
from examples.study.record import Record, read_records
from examples.study.report import text
from examples.study.tables import Results, parts, sort_out, values

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDY = {
    "base model": "base",
    "GRPO, 3e-5": "grpo",
    "GRPO, matched rollouts, 1e-4": "matched_grpo",
    "HDPO, λ = 0.1, 1e-4": "hdpo_0.1",
    "HDPO, λ = 1, 1e-4": "hdpo_1",
    "HDPO, λ = 1, frozen, 1e-4": "frozen_1",
}
# column -> metric and number of the part: all problems, the base model's cliffs, what it solved
COLUMNS = {
    **{metric: (metric, 0) for metric in ("greedy", "pass@1", "pass@4", "pass@8")},
    **{"its cliffs: greedy": ("greedy", 1), "its cliffs: pass@8": ("pass@8", 1)},
    **{"what it solved: greedy": ("greedy", 2), "what it solved: pass@1": ("pass@1", 2)},
}
COLLAPSE = {
    "base model": "base",
    "GRPO": "grpo",
    "HDPO, λ = 0.01, drifting": "hdpo_0.01",
    "HDPO, λ = 1, drifting": "hdpo_1",
    "HDPO, λ = 1, frozen": "frozen_1",
}


def made(plan: str) -> tuple[Results, list[Record]]:
    records = read_records(ROOT / "docs/results" / plan / "runs")
    return sort_out(read_plan(plan), records), records


def readme_rows(heading: str) -> dict[str, dict[str, str]]:
    """Cells by row and column of the first table under a heading."""
    lines = README.partition(f"## {heading}")[2].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| "))
    table = [line for line in lines[start : next(i for i in range(start, len(lines)) if not lines[i])]]
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


def test_the_readmes_study_table_holds_the_means_and_learning_rates_of_the_result_files() -> None:
    results, _ = made("sums_first")
    rows, keeps = readme_rows("A study that anyone can repeat"), list(parts(results.base).values())
    for label, arm in STUDY.items():
        runs = [results.base] if arm == "base" else results.reported[arm]
        assert arm == "base" or (len(runs) == 3 and float(label.split(", ")[-1]) == results.chosen[arm])
        for column, (metric, part) in COLUMNS.items():
            assert rows[label][column] == f"{values(runs, metric, keeps[part]).mean():.3f}", (label, column)


def test_the_readmes_differences_from_the_second_base_model_are_those_of_the_result_files() -> None:
    second, first = made("sums")[0], made("sums_first")[0]
    said = README.partition("From the second one, pass@8 minus GRPO's is ")[2].partition("side by side")[0]
    wanted = [(second, "hdpo_1"), (first, "hdpo_1"), (second, "hdpo_0.1"), (first, "hdpo_0.1"), (second, "hdpo_0.01")]
    for results, arm in wanted:
        runs, baseline = results.reported[arm], results.reported["grpo"]
        pair = np.mean([r.mean("pass@8") for r in runs]), np.mean([r.mean("pass@8") for r in baseline])
        found, said = re.search(r"[+-]0\.\d{3}", said)[0], re.sub(r"[+-]0\.\d{3}", "", said, count=1)
        assert found == f"{pair[0] - pair[1]:+.3f}", arm
    assert all(len(second.reported[arm]) == 1 for _, arm in wanted) and "one seed each" in said


def test_the_readmes_collapse_table_holds_the_means_of_the_result_files() -> None:
    results, _ = made("collapse")
    rows = readme_rows("When the teacher collapses")
    for label, arm in COLLAPSE.items():
        [run] = [results.base] if arm == "base" else results.reported[arm]
        for metric in ("greedy", "pass@8"):
            assert rows[label][metric] == f"{run.mean(metric):.3f}", (label, metric)


def test_the_studys_rates_from_elsewhere_are_those_that_were_tuned_there() -> None:
    here, there = read_plan("sums"), read_plan("sums_first")
    assert here.rates == made("sums_first")[0].chosen
    for same in ("steps", "learning_rates", "tuning_seeds", "select_by", "base_model", "tuning_problems", "common"):
        assert getattr(here, same) == getattr(there, same), same
    assert {arm: here.arms[arm] for arm in there.arms} == there.arms


@pytest.mark.parametrize("plan", ["sums", "sums_first", "collapse"])
def test_a_result_page_is_what_its_result_files_give(plan: str) -> None:
    """Without the ends of intervals, whose last digit may differ from machine to machine."""
    results, records = made(plan)
    page = (ROOT / "docs/results" / plan / "README.md").read_text(encoding="utf-8")
    without_ends = [re.sub(r" \[[^\]]*, [^\]]*\]", "", t) for t in (page, text(read_plan(plan), records, results))]
    assert without_ends[0] == without_ends[1]
