"""What the documents say of the study in words is what the committed result files hold.

`scripts/docs_parts` fills in the numbers from the same files; here are the sentences that compare them.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from examples.study.plan import read_plan
from examples.study.record import Record
from examples.study.report import text
from examples.study.result_files import differing, read_record, read_records
from examples.study.results import Results, sort_out
from examples.study.tables import measured
from recipe.hdpo.tracking.teacher_collapse import STUDENT, CollapseMonitor
from scripts.docs_parts import study, study_tables

ROOT = Path(__file__).parents[2]


@functools.cache
def made(plan: str) -> tuple[Results, list[Record]]:
    records = read_records(ROOT / "docs/results" / plan / "runs")
    return sort_out(read_plan(plan), records), records


def excludes_zero(plan: str, arm: str, baseline: str, metric: str, part: str = "all") -> bool:
    cell = study.interval(plan, arm, baseline, metric, part)
    low, high = (float(end) for end in re.search(r"\[(.*), (.*)\]", cell).groups())
    return low > 0 or high < 0


def reported(*arms: str) -> dict[str, list[Record]]:
    """The runs of these arms, or of all that have some."""
    found = made("sums")[0].reported
    return {arm: found[arm] for arm in arms or found}


def test_every_arm_that_is_compared_has_three_runs_and_each_run_the_tuned_rate() -> None:
    chosen = made("sums")[0].chosen
    whole = {"grpo", "matched_grpo", "hdpo_1", "next_step_1"}
    assert whole <= reported().keys()
    for arm, runs in reported().items():
        seeds = [run.run.seed for run in runs]
        assert seeds == [1, 2, 3][: len(seeds)] and (len(seeds) == 3 or arm not in whole)
        assert {run.run.lr for run in runs} == {chosen[arm]}


def test_every_privileged_prompt_of_the_study_was_whole() -> None:
    plain = {"base", "grpo", "matched_grpo"}
    version = {record.run.arm: record.settings["settings_version"] for record in made("sums")[1]}
    assert {arm for arm, of in version.items() if of == 1} == plain
    assert {of for arm, of in version.items() if arm not in plain} == {2}


def test_with_lambda_1_every_difference_to_grpo_but_that_of_pass_1_is_free_of_zero() -> None:
    free = {name: excludes_zero("sums", "hdpo_1", "grpo", *column) for name, column in study_tables.COLUMNS.items()}
    assert all(free.values()), free


def test_what_hdpo_gains_in_all_and_loses_of_known_sums() -> None:
    falls = [float(study.mean("sums", arm, "pass@1", "known")) for arm in ("base", "hdpo_1", "grpo")]
    assert falls[1] < falls[0] < falls[2]
    assert all(float(study.gain("sums", "hdpo_1", "grpo", metric)) > 0 for metric in ("greedy", "pass@1", "pass@8"))


def test_nearly_half_of_the_test_problems_are_cliffs_of_the_base_model() -> None:
    assert 0.4 < int(study.problems("sums", "cliffs")) / int(study.problems("sums")) < 0.5


def test_every_run_with_lambda_1_beats_every_run_of_both_grpo_arms_at_pass_8_and_greedily() -> None:
    for metric in ("pass@8", "greedy"):
        best = max(run.mean(metric) for runs in reported("grpo", "matched_grpo").values() for run in runs)
        assert all(run.mean(metric) > best for runs in reported("hdpo_1", "next_step_1").values() for run in runs)


def test_no_difference_of_the_two_schedules_is_free_of_zero() -> None:
    free = [name for name, of in study_tables.COLUMNS.items() if excludes_zero("sums", "next_step_1", "hdpo_1", *of)]
    assert not free


def test_the_highest_rate_was_best_for_lambda_1_with_the_drifting_teacher_alone() -> None:
    chosen, rates = made("sums")[0].chosen, read_plan("sums").learning_rates
    assert (chosen["grpo"], chosen["hdpo_1"], chosen["frozen_1"]) == (min(rates), max(rates), 1e-4)


def test_the_lower_rate_and_not_the_teacher_keeps_what_was_known() -> None:
    assert (
        made("sums")[0].chosen["hdpo_1_slow"] == made("sums")[0].chosen["frozen_1"] < made("sums")[0].chosen["hdpo_1"]
    )
    known = ("pass@1", "known")
    assert excludes_zero("sums", "hdpo_1_slow", "hdpo_1", *known)
    assert not excludes_zero("sums", "hdpo_1_slow", "grpo", *known)
    columns = study_tables.COLUMNS.items()
    assert [n for n, of in columns if excludes_zero("sums", "frozen_1", "hdpo_1_slow", *of)] == ["pass@4"]
    assert not [n for n, of in columns if excludes_zero("sums", "frozen_0.1", "hdpo_0.1", *of)]


def test_runs_with_the_broken_prompt_differ_in_it_and_in_the_learning_rate_alone() -> None:
    broken = read_records(ROOT / "docs/results/broken_prompt/runs")
    assert len(broken) == 18 and {record.settings["settings_version"] for record in broken} == {1}
    for old in broken:
        assert not differing(old.settings, made("sums")[0].base.settings)
        assert [p.id for p in old.problems] == [p.id for p in made("sums")[0].base.problems]
        assert old.about["base_model_sha256"] == made("sums")[0].base.about["base_model_sha256"]
        if old.run.arm in reported():
            new = reported()[old.run.arm][0]
            assert set(old.overrides) ^ set(new.overrides) <= {
                *(f"actor_rollout_ref.actor.optim.lr={run.lr:g}" for run in (old.run, new.run)),
                *(f"{knob}={run.seed}" for run in (old.run, new.run) for knob in ("data.seed", "hdpo.rollout_seed")),
            }


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


@pytest.mark.parametrize("plan", ["sums", "collapse", "language"])
def test_a_result_page_is_what_its_result_files_give(plan: str, few_resamples: None) -> None:
    """Without the ends of intervals, whose last digit may differ from machine to machine."""
    results, records = made(plan)
    without_ends = [
        re.sub(r" \[[^\]]*, [^\]]*\]", "", t)
        for t in (study.page(plan), text(read_plan(plan), records, results, measured(read_plan(plan), results)))
    ]
    assert without_ends[0] == without_ends[1]


def test_the_students_warning_comes_in_runs_that_ended_at_nothing_and_in_no_other() -> None:
    """From the cliff rates of all committed runs, 16 prompts a step."""
    warned, healthy = {}, 0
    for path in sorted((ROOT / "docs/results").glob("*/runs/*.json")):
        run = read_record(path)
        monitor = CollapseMonitor(0.7, STUDENT)
        curve = run.curves.get("hdpo/cliff_rate", [])
        flags = [monitor.update(round(16 * (1 - rate)), 16)["hdpo/student_collapse"] for _, rate in curve]
        if any(flags):
            warned[run.run.arm, run.run.seed] = int(curve[flags.index(1.0)][0])
            assert run.mean("greedy") < 0.1
        healthy += bool(curve) and run.mean("greedy") > 0.4
    answers = {("answer_1", 1): 35, ("answer_1", 2): 30, ("answer_1", 3): 37}
    assert warned == {("grpo", 1): 19, ("hdpo_0.01", 1): 20, ("hdpo_1", 1): 60, **answers} and healthy > 30


def free(arm: str, baseline: str) -> list[str]:
    """The columns of the table in which a difference on words is told from zero."""
    return [name for name, of in study_tables.COLUMNS.items() if excludes_zero("language", arm, baseline, *of)]


def test_on_words_forward_kl_differs_from_grpo_in_coverage_and_pass_1_and_does_not_beat_the_untrained_model() -> None:
    for baseline in ("grpo", "matched_grpo"):
        assert free("forward_kl_1", baseline) == ["pass@1", "pass@8", "its cliffs: pass@8"]
        assert not free("hdpo_1", baseline)
    for metric in ("greedy", "pass@4", "pass@8"):
        assert not excludes_zero("language", "forward_kl_1", "base", metric)
    assert study.interval("language", "forward_kl_1", "base", "pass@1").startswith("-")
    base = made("language")[0].base
    words = study.keep("language", "all")
    assert all(
        study.values([run], "pass@8", words).mean() < study.values([base], "pass@8", words).mean()
        for run in made("language")[0].reported["grpo"]
    )


def test_on_words_the_step_gate_changes_no_column_and_makes_a_little_more_steps_true_with_every_seed() -> None:
    assert not free("kl_gate_1", "forward_kl_1") and not free("sft_1", "forward_kl_1")
    found = made("language")[0].reported
    for gated, without, grpo in zip(*(found[arm] for arm in ("kl_gate_1", "forward_kl_1", "grpo")), strict=True):
        assert gated.run.seed == without.run.seed == grpo.run.seed
        assert without.signs["valid_steps"] < gated.signs["valid_steps"] < grpo.signs["valid_steps"]
