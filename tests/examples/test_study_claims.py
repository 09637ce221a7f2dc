"""What the documents say of the study in words is what the committed result files hold.

`scripts/docs_parts` fills in the numbers from the same files; here are the sentences that compare them.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from examples.study.plan import read_plan
from examples.study.record import Record, read_records
from examples.study.report import text
from examples.study.results import Results, sort_out
from examples.study.tables import measured, values
from scripts.docs_parts import study

ROOT = Path(__file__).parents[2]


@functools.cache
def made(plan: str) -> tuple[Results, list[Record]]:
    records = read_records(ROOT / "docs/results" / plan / "runs")
    return sort_out(read_plan(plan), records), records


def excludes_zero(plan: str, arm: str, baseline: str, metric: str, part: str = "all") -> bool:
    cell = study.interval(plan, arm, baseline, metric, part)
    low, high = (float(end) for end in re.search(r"\[(.*), (.*)\]", cell).groups())
    return low > 0 or high < 0


def test_every_reported_arm_has_three_runs_at_its_tuned_rate() -> None:
    for plan in ("sums", "sums_first"):
        results, _ = made(plan)
        for arm, runs in results.reported.items():
            assert [run.run.seed for run in runs] == [1, 2, 3] and {run.run.lr for run in runs} == {results.chosen[arm]}
    assert list(made("sums")[0].reported) == list(read_plan("sums").arms) and len(made("sums_first")[0].reported) == 5


def test_pass_8_minus_grpo_is_free_of_zero_for_lambda_1_everywhere_and_for_lambda_01_from_the_first_base_model() -> (
    None
):
    arms = {plan: [arm for arm in made(plan)[0].reported if arm != "grpo"] for plan in ("sums", "sums_first")}
    free = {(plan, arm) for plan in arms for arm in arms[plan] if excludes_zero(plan, arm, "grpo", "pass@8")}
    assert free == {(plan, arm) for plan in arms for arm in ("hdpo_1", "frozen_1")} | {("sums_first", "hdpo_0.1")}


def test_what_hdpo_loses_of_known_sums_is_free_of_zero_from_the_first_base_model_alone() -> None:
    lost = [excludes_zero(plan, "hdpo_1", "grpo", "pass@1", "known") for plan in ("sums", "sums_first")]
    assert lost == [False, True]
    falls = [float(study.mean("sums", arm, "pass@1", "known")) for arm in ("base", "hdpo_1", "grpo")]
    assert falls[1] < falls[0] < falls[2]


def test_lambda_01_differs_from_lambda_1_free_of_zero_in_pass_8_on_cliffs_alone() -> None:
    free = [c for c, of in study.COLUMNS.items() if excludes_zero("sums", "hdpo_0.1", "hdpo_1", *of)]
    assert free == ["its cliffs: pass@8"]


def test_nearly_half_of_the_test_problems_are_cliffs_of_the_base_model() -> None:
    assert 0.4 < int(study.problems("sums", "cliffs")) / int(study.problems("sums")) < 0.5


def test_the_means_of_greedy_and_of_pass_8_both_grow_with_lambda() -> None:
    for metric in ("greedy", "pass@8"):
        means = [float(study.mean("sums", f"hdpo_{size}", metric)) for size in ("0.01", "0.1", "1")]
        assert means == sorted(means) and len(set(means)) == 3


@pytest.mark.parametrize("plan", ["sums", "sums_first"])
def test_every_run_with_lambda_1_beats_every_run_of_both_grpo_arms_at_pass_8(plan: str) -> None:
    reported = made(plan)[0].reported
    best = max(run.mean("pass@8") for arm in ("grpo", "matched_grpo") for run in reported[arm])
    assert all(run.mean("pass@8") > best for arm in ("hdpo_1", "frozen_1") for run in reported[arm])


@pytest.mark.parametrize("plan", ["sums", "sums_first"])
def test_no_arm_of_hdpo_loses_more_than_0005_of_greedy_accuracy_to_grpo(plan: str) -> None:
    """Means over the runs, as the documents say."""
    greedy = {arm: values(runs, "greedy", lambda _: True).mean() for arm, runs in made(plan)[0].reported.items()}
    hdpo = [arm for arm in greedy if arm.startswith(("hdpo_", "frozen_"))]
    assert hdpo and all(greedy[arm] - greedy["grpo"] >= -0.005 for arm in hdpo)


def test_with_lambda_001_both_teachers_give_the_same_counts_by_losses_that_differ_in_most_steps() -> None:
    arms = [{run.run.seed: run for run in made("sums")[0].reported[arm]} for arm in ("hdpo_0.01", "frozen_0.01")]
    assert arms[0].keys() == arms[1].keys() == {1, 2, 3}
    for drifting, frozen in ((arms[0][seed], arms[1][seed]) for seed in arms[0]):
        assert drifting.problems == frozen.problems
        losses = zip(drifting.curves["hdpo/jsd_mean"], frozen.curves["hdpo/jsd_mean"], strict=True)
        assert sum(ours != theirs for ours, theirs in losses) > 50  # of 60 steps


def test_the_lowest_rate_was_best_for_grpo_and_for_lambda_001() -> None:
    lowest = min(read_plan("sums").learning_rates)
    at_it = {arm for arm, rate in made("sums")[0].chosen.items() if rate == lowest}
    assert at_it == {"grpo", "hdpo_0.01", "frozen_0.01"}


def test_too_high_a_rate_breaks_the_student_by_step_20_while_the_teacher_still_solves() -> None:
    reported = made("collapse")[0].reported
    assert all(len(runs) == 1 for runs in reported.values())
    reward = {arm: float(study.curve("collapse", arm, "critic/score/mean", "16", "20")) for arm in reported}
    assert max(reward.values()) < 0.2 and min(reward, key=reward.get) in ("grpo", "hdpo_0.01")
    solved = {
        a: float(study.curve("collapse", a, "hdpo/privileged_solve_rate", "16", "20")) for a in reported if a != "grpo"
    }
    assert min(solved.values()) >= 0.89
    last = {a: float(study.curve("collapse", a, "hdpo/privileged_solve_rate", "56", "60")) for a in solved}
    assert last["hdpo_1"] == 0.0 and all(last[a] < solved[a] for a in solved)


def test_of_the_runs_with_lambda_1_one_warned_and_in_two_steps() -> None:
    runs = [run for plan in ("sums", "sums_first") for run in made(plan)[0].reported["hdpo_1"]]
    warnings = [sum(value for _, value in run.curves["hdpo/teacher_collapse"]) for run in runs]
    assert sorted(warnings) == [0, 0, 0, 0, 0, 2]


def test_the_studys_rates_from_elsewhere_are_those_that_were_tuned_there() -> None:
    here, there = read_plan("sums"), read_plan("sums_first")
    assert here.rates == made("sums_first")[0].chosen
    for same in ("steps", "learning_rates", "tuning_seeds", "select_by", "base_model", "tuning_problems", "common"):
        assert getattr(here, same) == getattr(there, same), same
    assert {arm: here.arms[arm] for arm in there.arms} == there.arms


@pytest.mark.parametrize("plan", ["sums", "sums_first", "collapse"])
def test_a_result_page_is_what_its_result_files_give(plan: str, few_resamples: None) -> None:
    """Without the ends of intervals, whose last digit may differ from machine to machine."""
    results, records = made(plan)
    without_ends = [
        re.sub(r" \[[^\]]*, [^\]]*\]", "", t)
        for t in (study.page(plan), text(read_plan(plan), records, results, measured(read_plan(plan), results)))
    ]
    assert without_ends[0] == without_ends[1]
