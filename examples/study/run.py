"""A study: every arm tuned with the same budget, then run with several seeds; resumable, with small result files.

    python -m examples.study.run [--plan sums] [--out outputs/study] [--results docs/results/sums] [--arms ARM ...]

Every finished run leaves one JSON file in RESULTS: per-problem counts, curves, settings, versions, wall time. A run
whose file is there is not run again, so the study goes on wherever it was stopped, also on another machine. Weights and
logs go to OUT. Then `python -m examples.study.report` writes tables and plots; this program calls it at its end.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from examples.study.plan import Plan, Run, choose_learning_rates, read_plan
from examples.study.record import Record, make_record, read_records
from examples.training import ROOT, evaluate, python, say, train_with

# Rows by number of terms, 2 to 6, of the training data; the test data has as many of each.
WEIGHTS = (1, 3, 4, 2, 1)
TRAIN_PROBLEMS = 640


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
    left = args.max_runs if args.max_runs is not None else sys.maxsize
    left = finish([Run("base", "base", 0.0, 0), *plan.tuning_runs()], plan, out, runs, left)
    records = read_records(runs)
    chosen = choose_learning_rates(plan, {r.run: r.mean(plan.select_by) for r in records if r.run.phase == "tune"})
    say("learning rates: " + ", ".join(f"{arm} {lr:g}" for arm, lr in chosen.items()))
    finish(plan.report_runs(chosen), plan, out, runs, left)
    python("-m", "examples.study.report", "--plan", plan.name, "--results", results)


def finish(wanted: list[Run], plan: Plan, out: Path, results: Path, left: int) -> int:
    """Run what has no result file yet, at most ``left`` runs; returns how many more are allowed. Leaves the program
    when some of these runs are still missing."""
    for number, run in enumerate(wanted, 1):
        path = results / f"{run.name}.json"
        if path.exists():
            continue
        if left == 0:
            missing = sum(not (results / f"{r.name}.json").exists() for r in wanted)
            sys.exit(f"[hdpo] stopped by --max-runs; {missing} runs of this phase are left, the same command goes on")
        say(f"{run.name} ({number} of {len(wanted)} of this phase)")
        run_once(run, plan, out).write(path)
        left -= 1
    return left


def run_once(run: Run, plan: Plan, out: Path) -> Record:
    """Train (unless it is the base model), evaluate, and take the results together. Checkpoints are removed."""
    model, data, folder = out / "model", out / "data", out / run.name
    python("examples/demo/make_sums_model.py", "--out", model, *plan.base_model)
    if not (data / "test.parquet").exists():
        sizes = ["--train-size", TRAIN_PROBLEMS, "--test-size", plan.test_problems, "--weights", *WEIGHTS]
        python("data_preprocess/sums.py", "--out", data, *sizes)
    began, trained, checkpoint = time.time(), 0.0, model
    overrides: list[str] = []
    if run.phase != "base":
        overrides = plan.overrides(run)
        saving = [f"trainer.save_freq={plan.steps}"]
        train_with([*overrides, *saving], plan.steps, model, data, folder)
        trained = time.time() - began
        checkpoint = folder / "checkpoints" / f"global_step_{plan.steps}"
    evaluated = evaluate(checkpoint, data, folder / "eval", plan.samples, plan.ks)
    record = make_record(run, plan, overrides, folder, evaluated, (trained, time.time() - began - trained))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return record


if __name__ == "__main__":
    main()
