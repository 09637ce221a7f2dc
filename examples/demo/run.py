"""The demo: a small model whose long sums are cliffs, trained with HDPO (and GRPO), evaluated before and after.

    python -m examples.demo.run --arms hdpo [grpo] [--steps 60] [--out outputs/demo] [KEY=VALUE ...]

Phases: base model (the study's, or what is in OUT/model) -> data -> evaluation of the base model -> preflight: how many
prompts are cliffs, and what a solution changes -> training, once per arm from the same start with the same seeds ->
evaluation of every arm -> pages: the report, which links to the preflight's and to that of all cliffs. Each phase finds
what an earlier run has finished and goes on from there.
KEY=VALUE arguments are Hydra overrides for every arm, on top of examples/cpu_demo.sh.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from examples.study.tasks import TRAIN_PROBLEMS, WEIGHTS
from examples.training import CPU, MAX_TOKENS, ROOT, copy_whole, evaluate, hold, python, say, train_with
from recipe.hdpo.tracking.group_lines import GROUP_FOLDER

# The command that made these weights gives others on another kind of processor, and what a few steps teach depends on
# them: from those of one machine 100 steps taught no cliff. From these it is known over three seeds.
BASE_MODEL = ROOT / "docs" / "results" / "sums" / "base_model"
# GRPO is the same trainer without privileged rollouts, at the rate that the study tuned for it.
ARMS = {"hdpo": [], "grpo": ["+control=grpo", "actor_rollout_ref.actor.optim.lr=3e-5"]}
# A sampling seed for every rollout, so that a second try on one machine gives the same.
COMMON = ["hdpo.rollout_seed=1"]
# In the report.
NAMES = {"base": "base model", "hdpo": "HDPO", "grpo": "GRPO"}
# As in training.
TEMPLATE = "{{ problem }}\nReference:\n{{ solution }}"
PREFLIGHT = ["--limit", 60, "--n", 8, "--privileged-n", 1, "--sources", "solution", "--train-batch-size", 16]
# 40 test problems for each number of terms.
TEST_PROBLEMS, SAMPLES, KS = 200, 8, (1, 4, 8)


def main() -> None:
    """Parse the command line and run the phases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["hdpo"])
    parser.add_argument("--steps", type=int, default=60, help="training steps of every arm (default 60)")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/demo"), help="folder for everything (default outputs/demo)"
    )
    args, overrides = parser.parse_known_args()
    unknown = [o for o in overrides if "=" not in o or o.startswith("-")]
    if unknown:
        parser.error(f"unknown arguments {unknown}; Hydra overrides have the form KEY=VALUE")
    began, out = time.time(), args.out.resolve()
    model, data = out / "model", out / "data"
    say(f"everything goes to {out}")
    hold(out)
    say("1/7 base model")
    if not model.exists():
        copy_whole(BASE_MODEL, model)
    say("2/7 data")
    if not (data / "test.parquet").exists():
        sizes = ["--train-size", TRAIN_PROBLEMS, "--test-size", TEST_PROBLEMS, "--weights", *WEIGHTS]
        python("-m", "data_preprocess.sums", "--out", data, *sizes)
    say("3/7 evaluation of the base model")
    evaluated = {"base": evaluate(model, data / "test.parquet", out / "eval" / "base", SAMPLES, KS)}
    print_figures(evaluated)
    say("4/7 preflight: how many prompts are cliffs, and how many of these are solved with the solution shown?")
    preflight(model, data / "train.parquet", out / "preflight")
    for arm in args.arms:
        say(f"5/7 training: {arm}, {args.steps} steps")
        settings = [*ARMS[arm], *COMMON, f"trainer.rollout_data_dir={out / arm / 'rollouts'}", *overrides]
        train_with(settings, args.steps, model, data, out / arm)
    say("6/7 evaluation of what was trained")
    for arm in args.arms:
        checkpoint = out / arm / "checkpoints" / f"global_step_{args.steps}"
        evaluated[arm] = evaluate(checkpoint, data / "test.parquet", out / "eval" / f"{arm}-{args.steps}", SAMPLES, KS)
    say("7/7 pages")
    report = write_pages(out, args.arms, evaluated)
    print_figures(evaluated)
    say(f"done in {(time.time() - began) / 60:.0f} min; report: {report}")
    say(
        "next: make demo-compare, or read examples/cpu_demo.sh and change a setting: "
        "python -m examples.demo.run --out outputs/mine hdpo.distillation_loss_coef=0.5"
    )


def preflight(model: Path, problems: Path, out: Path) -> None:
    """The preflight's page of the base model; finished samples are kept."""
    arguments = ["--model", model, "--data", problems, "--out", out, *PREFLIGHT, "--max-tokens", MAX_TOKENS]
    python("-m", "recipe.hdpo.preflight", *arguments, "--template", TEMPLATE, env=CPU)


def write_pages(out: Path, arms: list[str], evaluated: dict[str, Path]) -> Path:
    """The HTML report over the base model and the arms, and the page of all cliffs; returns the report."""
    report = out / "report" / "report.html"
    pages = {"preflight": out / "preflight" / "preflight.html"}
    for arm in arms:
        rollouts, name = out / arm / "rollouts", f"cliffs of {NAMES[arm]}"
        if (rollouts / GROUP_FOLDER).is_dir():
            pages[name] = report.with_name(f"cliffs_{arm}.html")
            python("-m", "recipe.hdpo.cliffs", rollouts, "--out", pages[name])
    metrics = [f"{NAMES[arm]}={out / arm / 'metrics.jsonl'}" for arm in arms]
    results = [f"{NAMES[arm]}={folder}" for arm, folder in evaluated.items()]
    links = [f"{name}={page}" for name, page in pages.items()]
    options = ["--title", "HDPO demo: sums of 2 to 6 numbers", "--pages", *links, "--train-metrics", *metrics]
    python("-m", "recipe.hdpo.compare", *results, "--out", report, "--force", *options)
    return report


def print_figures(evaluated: dict[str, Path]) -> None:
    """The two or three figures that matter."""
    for arm, folder in evaluated.items():
        overall = json.loads((folder / "summary.json").read_text())["overall"]
        say(f"{arm:>5}: " + "  ".join(f"{m} {overall[m]['estimate']:.3f}" for m in ("greedy", "pass@1", "pass@8")))


if __name__ == "__main__":
    main()
