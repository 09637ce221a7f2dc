"""The demo: a small model whose long sums are cliffs, trained with HDPO (and GRPO), evaluated before and after.

    python -m examples.demo.run --arms hdpo [grpo] [--steps 100] [--out outputs/demo] [KEY=VALUE ...]

Phases: base model -> data -> training, once per arm from the same start with the same seeds -> evaluation of the base
and of every arm -> one HTML report. Each phase finds what an earlier run has finished and goes on from there.
KEY=VALUE arguments are Hydra overrides for every arm, on top of examples/cpu_demo.sh.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
# GRPO is the same trainer without privileged rollouts.
ARMS = {"hdpo": [], "grpo": ["hdpo.privileged.n=0"]}
# 40 steps an epoch, so that former cliffs are seen again; 40 test problems for each number of terms.
TRAIN_PROBLEMS, TEST_PROBLEMS, SAMPLES = 640, 200, 8
# Rows by number of terms, 2 to 6: most of them just beyond what the base model can do.
WEIGHTS = (1, 3, 4, 2, 1)


def main() -> None:
    """Parse the command line and run the phases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["hdpo"])
    parser.add_argument("--steps", type=int, default=100, help="training steps of every arm (default 100)")
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
    say("1/5 base model")
    python("examples/demo/make_sums_model.py", "--out", model)
    say("2/5 data")
    if not (data / "test.parquet").exists():
        sizes = ["--train-size", TRAIN_PROBLEMS, "--test-size", TEST_PROBLEMS, "--weights", *WEIGHTS]
        python("data_preprocess/sums.py", "--out", data, *sizes)
    for arm in args.arms:
        say(f"3/5 training: {arm}, {args.steps} steps")
        train_with([*ARMS[arm], *overrides], args.steps, model, data, out / arm)
    say("4/5 evaluation")
    evaluated = {"base": evaluate(model, data, out / "eval" / "base")}
    for arm in args.arms:
        checkpoint = out / arm / "checkpoints" / f"global_step_{args.steps}"
        evaluated[arm] = evaluate(checkpoint, data, out / "eval" / f"{arm}-{args.steps}")
    say("5/5 report")
    report = write_report(out, args.arms, evaluated)
    print_figures(evaluated)
    say(f"done in {(time.time() - began) / 60:.0f} min; report: {report}")
    say(
        "next: make demo-compare, or read examples/cpu_demo.sh and change a setting: "
        "python -m examples.demo.run --out outputs/mine hdpo.distillation_loss_coef=0.5"
    )


def say(text: str) -> None:
    """Print a line of the demo's own."""
    print(f"[demo] {text}", flush=True)


def python(*arguments: object, env: dict[str, str] | None = None) -> None:
    """Run a Python program of this checkout; leave with its exit code if it fails."""
    command = [sys.executable, *map(str, arguments)]
    code = subprocess.run(command, cwd=ROOT, env={**os.environ, **(env or {})}).returncode
    if code:
        sys.exit(f"[demo] stopped: `{' '.join(command)}` failed with exit code {code} (messages above)")


def train_with(overrides: list[str], steps: int, model: Path, data: Path, out: Path) -> None:
    """Run examples/cpu_demo.sh, or go on from its last checkpoint. A progress bar follows the metrics."""
    done = last_step(out)
    if done >= steps:
        say(f"{out.name} has its {steps} steps already")
        return
    out.mkdir(parents=True, exist_ok=True)
    log, part = out / "train.log", out / f"metrics.from_{done}.jsonl"
    part.unlink(missing_ok=True)
    env = {
        **os.environ,
        "MODEL": str(model),
        "DATA": str(data),
        "OUT": str(out),
        "METRICS": str(part),
        "PYTHON": sys.executable,
    }
    command = ["bash", "examples/cpu_demo.sh", f"trainer.total_training_steps={steps}", *overrides]
    say(f"log: {log}; Ray and vLLM take 1 to 3 minutes to start")
    with log.open("a") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT)
        try:
            follow(process, part, done, steps)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            sys.exit(f"[demo] stopped; the same command goes on from the last checkpoint in {out / 'checkpoints'}")
    merge_metrics(out)
    if process.returncode or last_step(out) < steps:
        tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-25:])
        sys.exit(f"{tail}\n[demo] stopped: training failed (exit code {process.returncode}); whole log: {log}")


def follow(process: subprocess.Popen, metrics: Path, done: int, steps: int) -> None:
    """Show training progress from the metrics file until the process ends."""
    with tqdm(total=steps, initial=done, desc="steps", unit="step") as bar:
        while True:
            ended = process.poll() is not None
            lines = metrics.read_bytes().split(b"\n")[:-1] if metrics.exists() else []
            if lines:
                entry = json.loads(lines[-1])
                values = entry["data"]
                bar.n = entry["step"]
                shown = {"reward": "critic/score/mean", "cliffs": "hdpo/cliff_rate", "kept": "hdpo/kept_trajectories"}
                bar.set_postfix({k: f"{values[v]:.2f}" for k, v in shown.items() if v in values}, refresh=False)
            bar.refresh()
            if ended:
                return
            time.sleep(1.0)


def last_step(out: Path) -> int:
    """The step of the last whole checkpoint; 0 without one."""
    marker = out / "checkpoints" / "latest_checkpointed_iteration.txt"
    return int(marker.read_text()) if marker.exists() else 0


def merge_metrics(out: Path) -> None:
    """verl's file logger starts a new file at every start: join them, later starts replacing earlier ones."""
    entries: dict[int, bytes] = {}
    for part in sorted(out.glob("metrics.from_*.jsonl"), key=lambda p: int(p.stem.rsplit("_", 1)[1])):
        for line in part.read_bytes().split(b"\n")[:-1]:
            entries[json.loads(line)["step"]] = line
    (out / "metrics.jsonl").write_bytes(b"".join(entries[step] + b"\n" for step in sorted(entries)))


def evaluate(model: Path, data: Path, out: Path) -> Path:
    """Greedy and sampled evaluation; an evaluation that is complete is left as it is."""
    arguments = ["--model", model, "--data", data / "test.parquet", "--out", out, "--n", SAMPLES, "--k", 1, 4, 8]
    cpu = {"VERL_PLATFORM": "cpu", "VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    python("-m", "recipe.hdpo.evaluate", *arguments, "--max-tokens", 72, "--seed", 1, env=cpu)
    return out


def write_report(out: Path, arms: list[str], evaluated: dict[str, Path]) -> Path:
    """The HTML report over the base model and the arms."""
    report = out / "report" / "report.html"
    shutil.rmtree(report.parent, ignore_errors=True)
    metrics = [f"{arm}={out / arm / 'metrics.jsonl'}" for arm in arms]
    results = [f"{arm}={folder}" for arm, folder in evaluated.items()]
    title = "HDPO demo: sums of 2 to 6 numbers"
    python("-m", "recipe.hdpo.compare", *results, "--out", report, "--train-metrics", *metrics, "--title", title)
    return report


def print_figures(evaluated: dict[str, Path]) -> None:
    """The two or three figures that matter."""
    for arm, folder in evaluated.items():
        overall = json.loads((folder / "summary.json").read_text())["overall"]
        say(f"{arm:>5}: " + "  ".join(f"{m} {overall[m]['estimate']:.3f}" for m in ("greedy", "pass@1", "pass@8")))


if __name__ == "__main__":
    main()
