"""The README's and the result pages' numbers are those of the committed result files."""

from __future__ import annotations

import re
from pathlib import Path

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
    "HDPO, λ = 0.01, 3e-5": "hdpo_0.01",
    "HDPO, λ = 0.01, frozen, 3e-5": "frozen_0.01",
    "HDPO, λ = 0.1, 1e-4": "hdpo_0.1",
    "HDPO, λ = 0.1, frozen, 1e-4": "frozen_0.1",
    "HDPO, λ = 1, 1e-4": "hdpo_1",
    "HDPO, λ = 1, frozen, 1e-4": "frozen_1",
}
DIFFERENCES = {
    "λ = 1 - GRPO": ("hdpo_1", "grpo"),
    "λ = 1, frozen - GRPO": ("frozen_1", "grpo"),
    "λ = 0.1 - GRPO": ("hdpo_0.1", "grpo"),
    "λ = 1 - matched GRPO": ("hdpo_1", "matched_grpo"),
    "λ = 0.1 - λ = 1": ("hdpo_0.1", "hdpo_1"),
    "frozen - drifting, λ = 1": ("frozen_1", "hdpo_1"),
}
# column -> metric and number of the part: all problems, the base model's cliffs, what it solved
COLUMNS = {
    **{metric: (metric, 0) for metric in ("greedy", "pass@1", "pass@4", "pass@8")},
    **{"its cliffs: greedy": ("greedy", 1), "its cliffs: pass@8": ("pass@8", 1)},
    **{"what it solved: greedy": ("greedy", 2), "what it solved: pass@1": ("pass@1", 2)},
}
REPLICATION = {
    "GRPO, matched rollouts": "matched_grpo",
    "HDPO, λ = 0.01": "hdpo_0.01",
    "HDPO, λ = 0.01, frozen": "frozen_0.01",
    "HDPO, λ = 0.1": "hdpo_0.1",
    "HDPO, λ = 0.1, frozen": "frozen_0.1",
    "HDPO, λ = 1": "hdpo_1",
    "HDPO, λ = 1, frozen": "frozen_1",
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
    results, _ = made("sums")
    rows, keeps = readme_rows("A study that anyone can repeat"), list(parts(results.base).values())
    for label, arm in STUDY.items():
        runs = [results.base] if arm == "base" else results.reported[arm]
        assert arm == "base" or (len(runs) == 3 and float(label.split(", ")[-1]) == results.chosen[arm])
        for column, (metric, part) in COLUMNS.items():
            assert rows[label][column] == f"{values(runs, metric, keeps[part]).mean():.3f}", (label, column)
    assert list(rows) == [*STUDY, *DIFFERENCES]


def page_of(plan: str) -> str:
    return (ROOT / "docs/results" / plan / "README.md").read_text(encoding="utf-8")


def page_table(page: str, part: int, first: str) -> dict[str, dict[str, str]]:
    """Cells by row and column of a page's table: the part's number, and what its first cell says."""
    sections = [section for section in page.split("\n## ") if "| minus grpo | greedy |" in section]
    head, _, *body = sections[part].partition(f"| {first} |")[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in body]
    return {row[0]: dict(zip(head.strip("| ").split(" | "), row[1:], strict=True)) for row in cells}


def test_the_readmes_differences_and_their_intervals_are_those_of_the_result_page() -> None:
    page, rows = page_of("sums"), readme_rows("A study that anyone can repeat")
    for label, (arm, baseline) in DIFFERENCES.items():
        for column, (metric, part) in COLUMNS.items():
            cell = page_table(page, part, f"minus {baseline}")[arm][metric]
            assert rows[label][column] == cell.replace("+", ""), (label, column)


def test_the_readmes_differences_from_two_base_models_are_those_of_the_result_files() -> None:
    studies, rows = {"first": made("sums_first")[0], "second": made("sums")[0]}, readme_rows("From two base models")
    for label, arm in REPLICATION.items():
        for column, cell in rows[label].items():
            which, metric, cliffs = re.fullmatch(r"(first|second): ([^,]+)(, its cliffs)?", column).groups()
            results, part = studies[which], int(cliffs is not None)
            if arm not in results.reported:
                assert cell == "not run", (label, column)
                continue
            keep = list(parts(results.base).values())[part]
            ours, grpo = (values(results.reported[a], metric, keep).mean() for a in (arm, "grpo"))
            assert cell == f"{ours - grpo:+.3f}", (label, column)


def excludes_zero(cell: str) -> bool:
    low, high = (float(end) for end in re.search(r"\[(.*), (.*)\]", cell).groups())
    return low > 0 or high < 0


def test_the_intervals_that_the_readme_calls_free_of_zero_are_so_on_the_pages() -> None:
    gains = {plan: page_table(page_of(plan), 0, "minus grpo") for plan in ("sums", "sums_first")}
    free = {(plan, arm) for plan, rows in gains.items() for arm, row in rows.items() if excludes_zero(row["pass@8"])}
    assert free == {(plan, arm) for plan in gains for arm in ("hdpo_1", "frozen_1")} | {("sums_first", "hdpo_0.1")}
    lost = {plan: page_table(page_of(plan), 2, "minus grpo")["hdpo_1"]["pass@1"] for plan in gains}
    assert not excludes_zero(lost["sums"]) and excludes_zero(lost["sums_first"]) and lost["sums_first"] in README
    row = readme_rows("A study that anyone can repeat")["λ = 0.1 - λ = 1"]
    assert [column for column, cell in row.items() if excludes_zero(cell)] == ["its cliffs: pass@8"]


def test_the_readmes_figures_of_sums_of_4_numbers_are_those_of_the_result_files() -> None:
    results, _ = made("sums")
    base, grpo = (
        [values(runs, metric, lambda p: p.difficulty == "4").mean() for metric in ("pass@1", "pass@8")]
        for runs in ([results.base], results.reported["grpo"])
    )
    assert f"(pass@1 {base[0]:.3f} to {grpo[0]:.3f}, pass@8 {base[1]:.3f} to {grpo[1]:.3f})" in README


@pytest.mark.parametrize("plan", ["sums", "sums_first"])
def test_every_run_with_lambda_1_beats_every_run_of_both_grpo_arms_at_pass_8(plan: str) -> None:
    reported = made(plan)[0].reported
    best = max(run.mean("pass@8") for arm in ("grpo", "matched_grpo") for run in reported[arm])
    assert all(run.mean("pass@8") > best for arm in ("hdpo_1", "frozen_1") for run in reported[arm])


@pytest.mark.parametrize("plan", ["sums", "sums_first"])
def test_no_arm_of_hdpo_loses_more_than_0005_of_greedy_accuracy_to_grpo(plan: str) -> None:
    """Means over the runs, as the README says."""
    greedy = {arm: values(runs, "greedy", lambda _: True).mean() for arm, runs in made(plan)[0].reported.items()}
    hdpo = [arm for arm in greedy if arm.startswith(("hdpo_", "frozen_"))]
    assert hdpo and all(greedy[arm] - greedy["grpo"] >= -0.005 for arm in hdpo)


def test_the_readmes_gains_of_single_runs_with_lambda_01_are_those_of_the_result_files() -> None:
    reported = made("sums")[0].reported
    grpo = sum(run.mean("pass@8") for run in reported["grpo"]) / len(reported["grpo"])
    said = re.search(r"differs from seed to seed \((.*?)\)", README, re.DOTALL)[1]
    wanted = [f"{run.mean('pass@8') - grpo:+.3f}" for arm in ("hdpo_0.1", "frozen_0.1") for run in reported[arm]]
    assert re.findall(r"[+-]0\.\d{3}", said) == wanted


def test_with_lambda_001_both_teachers_give_the_same_counts_by_losses_that_differ_in_most_steps() -> None:
    arms = [{run.run.seed: run for run in made("sums")[0].reported[arm]} for arm in ("hdpo_0.01", "frozen_0.01")]
    assert arms[0].keys() == arms[1].keys() == {1, 2, 3}
    for drifting, frozen in ((arms[0][seed], arms[1][seed]) for seed in arms[0]):
        assert drifting.problems == frozen.problems
        losses = zip(drifting.curves["hdpo/jsd_mean"], frozen.curves["hdpo/jsd_mean"], strict=True)
        assert sum(ours != theirs for ours, theirs in losses) > 50  # of 60 steps


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
    without_ends = [
        re.sub(r" \[[^\]]*, [^\]]*\]", "", t) for t in (page_of(plan), text(read_plan(plan), records, results))
    ]
    assert without_ends[0] == without_ends[1]
