"""A study: every arm tuned with the same budget, then run with several seeds; resumable, with small result files.

    python -m examples.study.run [--plan sums] [--out outputs/study] [--results docs/results/sums] [--arms ARM ...]

Every finished run leaves one JSON file in RESULTS: per-problem counts, curves, settings, versions, wall time. A run
whose file is there is not run again, so the study goes on wherever it was stopped, also on another machine: the base
model's weights are kept beside them, in RESULTS/base_model. All other weights and the logs go to OUT. Then
``python -m examples.study.report`` writes tables and plots; this program calls it at its end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from examples.study.plan import TRAIN_PROBLEMS, WEIGHTS, Plan, Run, choose_learning_rates, read_plan
from examples.study.record import Record, base_model_sha256, make_record, plan_settings
from examples.study.result_files import VERSIONS, differing, read_record, read_records
from examples.training import ROOT, copy_whole, evaluate, hold, last_step, python, say, train_with


def main() -> None:
    """Parse the command line and run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", default="sums", help="a YAML file of examples/study, without .yaml (default sums)")
    parser.add_argument("--out", type=Path, help="folder of models, logs, checkpoints (default outputs/study-PLAN)")
    parser.add_argument("--results", type=Path, help="folder of the result files (default docs/results/PLAN)")
    parser.add_argument("--arms", nargs="+", help="only these arms (default all); the report shows what there is")
    parser.add_argument("--max-runs", type=int, help="stop after this many runs")
    args = parser.parse_args()
    plan = read_plan(args.plan)
    if args.arms:
        unknown = sorted(set(args.arms) - set(plan.arms))
        if unknown:
            parser.error(f"unknown arms {unknown}; {args.plan}.yaml has {list(plan.arms)}")
        plan = replace(plan, arms={arm: plan.arms[arm] for arm in args.arms})
    out = (args.out or ROOT / "outputs" / f"study-{plan.name}").resolve()
    results = (args.results or ROOT / "docs" / "results" / plan.name).resolve()
    runs = results / "runs"
    say(f"models and logs: {out}; results: {results}")
    hold(out)
    left = args.max_runs if args.max_runs is not None else sys.maxsize
    left = finish([*plan.base_runs(), *plan.tuning_runs()], plan, out, runs, left)
    records = read_records(runs)
    chosen = choose_learning_rates(plan, {r.run: r.mean(plan.select_by) for r in records})
    say("learning rates: " + ", ".join(f"{arm} {lr:g}" for arm, lr in chosen.items()))
    finish(plan.report_runs(chosen), plan, out, runs, left)
    python("-m", "examples.study.report", "--plan", plan.name, "--results", results)


def finish(wanted: list[Run], plan: Plan, out: Path, results: Path, left: int) -> int:
    """Run what has no result file yet, at most ``left`` runs; returns how many more are allowed. Leaves the program
    when some of these runs are still missing, or when a file was made with other settings."""
    settings, has_start = plan_settings(plan), False
    for number, run in enumerate(wanted, 1):
        path = results / f"{run.name}.json"
        if path.exists():
            check_settings(path, run, plan, settings)
            continue
        if left == 0:
            missing = sum(not (results / f"{r.name}.json").exists() for r in wanted)
            sys.exit(f"[hdpo] stopped by --max-runs; {missing} runs of this phase are left, the same command goes on")
        say(f"{run.name} ({number} of {len(wanted)} of this phase)")
        if not has_start:
            make_start(plan, out, results.parent)
            has_start = True
        check_base_model(out / "model", results.parent)
        run_once(run, plan, settings, out).write(path)
        # Only now that the result is on disk.
        shutil.rmtree(out / run.name / "checkpoints", ignore_errors=True)
        left -= 1
    return left


def check_settings(path: Path, run: Run, plan: Plan, settings: Mapping[str, Any]) -> None:
    """Leave the program if a result file was made by another plan or data set; name another version of the grader or of
    the training settings."""
    record = read_record(path)
    changed = differing(
        {**record.settings, "overrides": record.overrides}, {**settings, "overrides": plan.overrides(run)}
    )
    if changed:
        sys.exit(
            f"[hdpo] {path} was made with other settings ({', '.join(changed)}): give another --results and --out, or "
            "remove the file, and its run is repeated"
        )
    for key in VERSIONS:
        if record.settings[key] != settings[key]:
            say(f"{path.name} was made with {key} {record.settings[key]}; the study goes on with {settings[key]}")


def make_start(plan: Plan, out: Path, folder: Path) -> None:
    """The base model and the data, where they are not there yet. The base model is kept beside the results, since its
    command gives other weights on another kind of processor, and a study may go on elsewhere."""
    model, kept = out / "model", folder / "base_model"
    if kept.exists() and not model.exists():
        copy_whole(kept, model)
    python("-m", "examples.demo.make_sums_model", "--out", model, *plan.base_model)
    if not kept.exists():
        copy_whole(model, kept)
    make_data(plan, out / "data")


def check_base_model(model: Path, folder: Path) -> None:
    """Leave the program if results that are there started from other weights, or other weights are kept beside them."""
    own, kept = base_model_sha256(model), folder / "base_model"
    if base_model_sha256(kept) != own:
        sys.exit(
            f"[hdpo] {model} has other weights than {kept}, where the base model of these results is kept: give "
            "another --out, and it is copied there, or another --results"
        )
    others = [r.run.name for r in read_records(folder / "runs") if r.about.get("base_model_sha256") != own]
    if others:
        sys.exit(
            f"[hdpo] {kept} has other weights than the base model of {len(others)} results in {folder / 'runs'} "
            f"({others[0]}, ...): the same command can give others on another kind of processor. Put the weights there "
            "that they were made with, or give another --results"
        )


def run_once(run: Run, plan: Plan, settings: Mapping[str, Any], out: Path) -> Record:
    """Train (unless it is the base model), evaluate, and take the results together."""
    model, data, folder = out / "model", out / "data", out / run.name
    if not last_step(folder):
        # Of an earlier try, whose weights are gone.
        shutil.rmtree(folder / "eval", ignore_errors=True)
    began, trained, checkpoint = time.time(), 0.0, model
    if run.trains:
        saving = [f"trainer.save_freq={plan.steps}"]
        train_with([*plan.overrides(run), *saving], plan.steps, model, data, folder)
        trained = time.time() - began
        checkpoint = folder / "checkpoints" / f"global_step_{plan.steps}"
    problems = data / f"{run.problems}.parquet"
    evaluated = evaluate(checkpoint, problems, folder / "eval", plan.samples, plan.ks)
    seconds = trained, time.time() - began - trained
    return make_record(run, plan, settings, model, folder, evaluated, seconds)


def make_data(plan: Plan, data: Path) -> None:
    """Training problems, and two sets to evaluate on that share none with it nor with each other: ``tune.parquet``,
    by which learning rates are chosen, and ``test.parquet``, on which the reported runs are evaluated."""
    made = data / "made_by.json"
    about: dict[str, Any] = {"tune": plan.tuning_problems, "test": plan.test_problems}
    about |= {"train": TRAIN_PROBLEMS, "weights": list(WEIGHTS)}
    if made.exists():
        if json.loads(made.read_text()) != about:
            sys.exit(f"[hdpo] {data} was made with other settings: use another --out, or remove that folder")
        return
    held_out = plan.tuning_problems + plan.test_problems
    sizes = ["--train-size", TRAIN_PROBLEMS, "--test-size", held_out, "--weights", *WEIGHTS]
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        python("-m", "data_preprocess.sums", "--out", folder, *sizes)
        rows = pq.read_table(Path(folder, "test.parquet"))
        difficulty = pd.Series([info["difficulty"] for info in rows["extra_info"].to_pylist()])
        # The same share of every difficulty.
        rank = difficulty.groupby(difficulty).cumcount() / difficulty.map(difficulty.value_counts())
        tuning = (rank < plan.tuning_problems / held_out).to_numpy()
        data.mkdir(exist_ok=True)
        shutil.copy(Path(folder, "train.parquet"), data)
        pq.write_table(rows.filter(~tuning), data / "test.parquet")
        pq.write_table(rows.filter(tuning), data / "tune.parquet")
    made.write_text(json.dumps(about) + "\n")


if __name__ == "__main__":
    main()
