"""A study: every arm tuned with the same budget, then run with several seeds; resumable, with small result files.

    python -m examples.study.run [--plan sums] [--out outputs/study] [--results docs/results/sums] [--arms ARM ...]

Every finished run leaves one JSON file in RESULTS: per-problem counts, curves, settings, versions, wall time. A run
whose file is there is not run again, so the study goes on wherever it was stopped, also on another machine: the base
model's weights are kept beside them, in RESULTS/base_model. All other weights and the logs go to OUT. Then
``python -m examples.study.report`` writes tables and plots; this program calls it at its end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from examples.study.plan import Plan, Run, choose_learning_rates, read_plan
from examples.study.record import Record, make_record, plan_settings
from examples.study.result_files import VERSIONS, differing, read_record, read_records
from examples.study.tasks import TASKS, make_data, weights_sha256
from examples.training import ROOT, evaluate, hold, last_step, python, say, train_with


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
    wanted = args.arms or list(plan.arms)
    unknown = sorted(set(wanted) - set(plan.arms))
    if unknown:
        parser.error(f"unknown arms {unknown}; {args.plan}.yaml has {list(plan.arms)}")
    plan = only(plan, wanted)
    out = (args.out or ROOT / "outputs" / f"study-{plan.name}").resolve()
    results = (args.results or ROOT / "docs" / "results" / plan.name).resolve()
    runs = results / "runs"
    say(f"models and logs: {out}; results: {results}")
    hold(out)
    if TASKS[plan.task].threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(TASKS[plan.task].threads))
    left = args.max_runs if args.max_runs is not None else sys.maxsize
    left = finish([*plan.base_runs(), *plan.tuning_runs()], plan, out, runs, left)
    records = read_records(runs)
    chosen = choose_learning_rates(plan, {r.run: r.mean(plan.select_by) for r in records})
    say("learning rates: " + ", ".join(f"{arm} {lr:g}" for arm, lr in chosen.items()))
    finish([run for run in plan.report_runs(chosen) if run.arm in wanted], plan, out, runs, left)
    python("-m", "examples.study.report", "--plan", plan.name, "--results", results)


def only(plan: Plan, arms: Sequence[str]) -> Plan:
    """A plan of these arms and of those whose rate they take."""
    needed = {*arms, *map(plan.rate_of, arms)}
    return replace(plan, arms={arm: overrides for arm, overrides in plan.arms.items() if arm in needed})


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
    """The base model and the data, where they are not there yet. What the base model can be made from again is kept
    beside the results, since a study may go on elsewhere."""
    task, kept = TASKS[plan.task], folder / "base_model"
    task.model(out / "model", kept, plan.base_model)
    if not kept.exists():
        task.keep(out / "model", kept)
    make_data(task, plan.sizes, out / "data")


def check_base_model(model: Path, folder: Path) -> None:
    """Leave the program if results that are there started from other weights, or other weights are kept beside them."""
    own, kept = weights_sha256(model), folder / "base_model"
    if weights_sha256(kept) != own:
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
        steps = plan.steps_of(run)
        train_with([*plan.overrides(run), f"trainer.save_freq={steps}"], steps, model, data, folder)
        trained = time.time() - began
        checkpoint = folder / "checkpoints" / f"global_step_{steps}"
    problems = data / f"{run.problems}.parquet"
    max_tokens = TASKS[plan.task].max_tokens
    evaluated = evaluate(checkpoint, problems, folder / "eval", plan.samples, plan.ks, max_tokens=max_tokens)
    seconds = trained, time.time() - began - trained
    return make_record(run, plan, settings, model, folder, evaluated, seconds)


if __name__ == "__main__":
    main()
