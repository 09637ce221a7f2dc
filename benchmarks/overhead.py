"""Step time of HDPO over GRPO on the demo stack: 16 prompts, a quarter of them cliffs, K = 8, J = 1.

    python -m benchmarks.overhead [--steps 24] [--out outputs/overhead]

One run with a learning rate of 0, so that every step has the same kind of batch: even steps make HDPO's update, odd
steps GRPO's. The rollout phase is HDPO's in all of them; what privileged rollouts add to it is measured in each step,
from the moment at which the batch's last normal rollout settled. Medians over steps; the first two are left out. Not
counted: what privileged rollouts that run beside normal ones take from these.

    wait             waiting for privileged rollouts, on the critical path
    teacher pass     forward of the teacher over kept trajectories
    larger update    update of HDPO, less the teacher pass, minus update of GRPO
    the rest         everything else of a step: HDPO's steps minus GRPO's

Target: everything but the wait, together, at most 1.05 of GRPO's step (its time less the wait).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from examples.training import ROOT, hold, python, say, train_with

TARGET = 1.05
WEIGHTS = {2: 6, 3: 6, 4: 0, 5: 2, 6: 2}
OVERRIDES = [
    "trainer.v1.trainer_mode=hdpo_overhead",
    "actor_rollout_ref.actor.optim.lr=0.0",
    # one optimizer step for each batch of rollouts, as in the paper's settings
    "actor_rollout_ref.actor.ppo_mini_batch_size=16",
    "hdpo.distillation_loss_coef=0.1",
    "hdpo.privileged.n=1",
    "trainer.save_freq=1000",
]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=24, help="steps, half of them GRPO's (default 24)")
    parser.add_argument("--out", type=Path, default=Path("outputs/overhead"), help="folder for everything")
    args = parser.parse_args()
    out = args.out.resolve()
    hold(out)
    python("-m", "examples.demo.make_sums_model", "--out", out / "model")
    if not (out / "data" / "train.parquet").exists():
        weights = [str(WEIGHTS[terms]) for terms in sorted(WEIGHTS)]
        python("-m", "data_preprocess.sums", "--out", out / "data", "--test-size", 5, "--weights", *weights)
    os.environ["VERL_USE_EXTERNAL_MODULES"] = "benchmarks.overhead_trainer"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    train_with(OVERRIDES, args.steps, out / "model", out / "data", out / "run")
    lines = (out / "run" / "metrics.jsonl").read_text().splitlines()
    result = analyse([json.loads(line) for line in lines])
    (out / "overhead.json").write_text(json.dumps(result, indent=2) + "\n")
    print_table(result)
    say(f"figures: {out / 'overhead.json'}")
    say("next: python -m benchmarks.jsd")
    sys.exit(0 if result["ratio_without_wait"] <= TARGET else 1)


def analyse(steps: list[dict]) -> dict[str, float]:
    """Medians of the parts, in seconds, and the ratios to GRPO's step.

    Args:
        steps: lines of verl's file logger.
    """
    rows = [{"step": line["step"], **parts(line["data"])} for line in steps if line["step"] > 2]
    hdpo = [row for row in rows if row["step"] % 2 == 0 and row["teacher"] > 0]
    grpo = [row for row in rows if row["step"] % 2 == 1]
    if not hdpo or not grpo:
        raise ValueError("no step with, or none without, the distillation term: run more steps")

    def median(of: list[dict], name: str) -> float:
        return statistics.median(row[name] for row in of)

    base = statistics.median(row["step_s"] - row["wait"] for row in grpo)
    result = {
        "steps_hdpo": len(hdpo),
        "steps_grpo": len(grpo),
        "cliff_rate": statistics.mean(row["cliff_rate"] for row in rows),
        "grpo_step": base,
        "wait": median(hdpo, "wait"),
        "teacher_pass": median(hdpo, "teacher"),
        "larger_update": median(hdpo, "update") - median(hdpo, "teacher") - median(grpo, "update"),
        "rest": median(hdpo, "other") - median(grpo, "other"),
    }
    added = result["teacher_pass"] + result["larger_update"] + result["rest"]
    result["ratio_without_wait"] = 1 + added / base
    result["ratio_with_wait"] = 1 + (added + result["wait"]) / base
    return result


def parts(metrics: dict[str, float]) -> dict[str, float]:
    """The parts of one step, in seconds. Rollouts are sampled anew each step: their time enters neither side's rest."""
    wait = metrics["hdpo/timing_s/privileged_wait"]
    known = metrics["timing_s/gen"] + metrics["timing_s/update_actor"]
    return {
        "step_s": metrics["timing_s/step"],
        "wait": wait,
        "update": metrics["timing_s/update_actor"],
        "teacher": metrics.get("hdpo/timing_s/teacher_pass", 0.0),
        "other": metrics["timing_s/step"] - known,
        "cliff_rate": metrics["hdpo/cliff_rate"],
    }


def print_table(result: dict[str, float]) -> None:
    """Print medians in milliseconds and shares of GRPO's step."""
    base = result["grpo_step"]
    print(f"\ncliff rate {result['cliff_rate']:.2f}; {result['steps_grpo']} GRPO and {result['steps_hdpo']} HDPO steps")
    print(f"{'GRPO step':<16}{1000 * base:>9.0f} ms")
    for name in ("teacher_pass", "larger_update", "rest", "wait"):
        print(f"+ {name.replace('_', ' '):<14}{1000 * result[name]:>9.0f} ms   {result[name] / base:+.3f}")
    held = "held" if result["ratio_without_wait"] <= TARGET else "missed"
    print(
        f"HDPO / GRPO without the wait {result['ratio_without_wait']:.3f} (target {TARGET}: {held}), "
        f"with it {result['ratio_with_wait']:.3f}"
    )


if __name__ == "__main__":
    main()
