"""Step time of HDPO, with either schedule, over GRPO's: 16 prompts, a quarter of them cliffs, K = 8, J = 1.

    python -m benchmarks.overhead [--steps 26] [--long] [--out outputs/overhead]

One run on the same 16 prompts with a learning rate of 0, so that every step has the same kind of batch. Its steps are
in turn HDPO's with ``same_step``, HDPO's with ``next_step``, and GRPO's (no privileged rollout, no distillation term).
Medians over steps; the first two are left out.

    teacher pass     forward of the teacher over kept trajectories
    larger update    update of HDPO, less the teacher pass, minus update of GRPO
    rollout phase    of HDPO, less the wait, minus GRPO's: what privileged rollouts take from those beside them
    the rest         everything else of a step: HDPO's steps minus GRPO's. verl's clock of the rollout phase starts when
                     all prompts are on their way, so read this together with the rollout phase
    wait             for privileged rollouts after the batch's last plain rollout has settled

``--long`` lets the responses to the prompts that are to fail run into a length limit of 192 tokens, as failures of
language models do; otherwise all responses of this task end by themselves after 10 to 60 tokens.

Targets: ``next_step`` at most 1.05 of GRPO's step in all, ``same_step`` less its wait as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from benchmarks.overhead_trainer import KINDS, kind
from examples.demo.run import BASE_MODEL
from examples.training import ROOT, hold, python, say, train_with

TARGET = 1.05
# Sums of 2, 3, 5 and 6 numbers: with the study's base model the last quarter are cliffs.
WEIGHTS = {2: 6, 3: 6, 4: 0, 5: 2, 6: 2}
PROMPTS = 16
OVERRIDES = [
    "trainer.v1.trainer_mode=hdpo_overhead",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class=benchmarks.overhead_rollout.OverheadManager",
    "actor_rollout_ref.actor.optim.lr=0.0",
    # one optimizer step for each batch of rollouts, as in the paper's settings
    "actor_rollout_ref.actor.ppo_mini_batch_size=16",
    "hdpo.distillation_loss_coef=0.1",
    "hdpo.privileged.n=1",
    "hdpo.privileged.schedule=next_step",
    "trainer.save_freq=1000",
]
LONG = ["data.max_response_length=192", "actor_rollout_ref.rollout.max_model_len=400"]
PARTS = ("teacher_pass", "larger_update", "rollout_phase", "rest", "wait")


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=26, help="steps, a third of them GRPO's (default 26)")
    parser.add_argument("--long", action="store_true", help="failures run into the length limit")
    parser.add_argument("--out", type=Path, default=Path("outputs/overhead"), help="folder for everything")
    args = parser.parse_args()
    out = args.out.resolve() / ("long" if args.long else "short")
    hold(out)
    if not (out / "data" / "train.parquet").exists():
        weights = [str(WEIGHTS[terms]) for terms in sorted(WEIGHTS)]
        sizes = ["--train-size", PROMPTS, "--test-size", 5, "--weights", *weights]
        python("-m", "data_preprocess.sums", "--out", out / "data", *sizes)
    os.environ["VERL_USE_EXTERNAL_MODULES"] = "benchmarks.overhead_trainer"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if args.long:
        # Read by benchmarks/overhead_rollout.py, which imports Ray.
        os.environ["HDPO_OVERHEAD_FAILURES_RUN_TO_LIMIT"] = "1"
    train_with([*OVERRIDES, *(LONG if args.long else [])], args.steps, BASE_MODEL, out / "data", out / "run")
    lines = (out / "run" / "metrics.jsonl").read_text().splitlines()
    result = analyse([json.loads(line) for line in lines])
    (out / "overhead.json").write_text(json.dumps(result, indent=2) + "\n")
    print_table(result)
    say(f"figures: {out / 'overhead.json'}")
    say("next: python -m benchmarks.schedule, what a schedule costs with lengths like yours")
    sys.exit(0 if result["ratio_next_step"] <= TARGET and result["ratio_same_step_without_wait"] <= TARGET else 1)


def analyse(steps: list[dict]) -> dict[str, float]:
    """Medians of the parts, in seconds, and the ratios to GRPO's step.

    Args:
        steps: lines of verl's file logger.

    Returns:
        ``grpo_step``, ``{part}_{kind}`` of both schedules, ``ratio_{kind}`` of the whole step, and so on.
    """
    rows = [(kind(line["step"]), parts(line["data"])) for line in steps if line["step"] > 2]
    by_kind = {name: [row for of, row in rows if of == name] for name in KINDS}
    by_kind = {name: [row for row in found if name == "GRPO" or row["teacher"] > 0] for name, found in by_kind.items()}
    if not all(by_kind.values()):
        raise ValueError("a kind of step is missing, or none of HDPO's has kept trajectories: run more steps")

    def median(name: str, of: str) -> float:
        return statistics.median(row[of] for row in by_kind[name])

    base = median("GRPO", "step_s")
    result = {f"steps_{name}": float(len(found)) for name, found in by_kind.items()}
    result |= {"cliff_rate": statistics.mean(row["cliff_rate"] for _, row in rows), "grpo_step": base}
    for name in KINDS[:2]:
        result |= {
            f"teacher_pass_{name}": median(name, "teacher"),
            f"larger_update_{name}": median(name, "update") - median(name, "teacher") - median("GRPO", "update"),
            f"rollout_phase_{name}": median(name, "rollouts") - median("GRPO", "rollouts"),
            f"rest_{name}": median(name, "other") - median("GRPO", "other"),
            f"wait_{name}": median(name, "wait"),
            f"ratio_{name}": median(name, "step_s") / base,
            f"ratio_{name}_without_wait": statistics.median(r["step_s"] - r["wait"] for r in by_kind[name]) / base,
        }
    return result


def parts(metrics: dict[str, float]) -> dict[str, float]:
    """The parts of one step, in seconds."""
    wait = metrics.get("hdpo/timing_s/privileged_wait", 0.0)
    return {
        "step_s": metrics["timing_s/step"],
        "wait": wait,
        "rollouts": metrics["timing_s/gen"] - wait,
        "update": metrics["timing_s/update_actor"],
        "teacher": metrics.get("hdpo/timing_s/teacher_pass", 0.0),
        "other": metrics["timing_s/step"] - metrics["timing_s/gen"] - metrics["timing_s/update_actor"],
        "cliff_rate": metrics["hdpo/cliff_rate"],
    }


def print_table(result: dict[str, float]) -> None:
    """Print medians in milliseconds and shares of GRPO's step."""
    base = result["grpo_step"]
    counts = ", ".join(f"{result[f'steps_{name}']:.0f} {name}" for name in KINDS)
    print(f"\ncliff rate {result['cliff_rate']:.2f}; steps: {counts}")
    print(f"{'GRPO step':<16}{1000 * base:>9.0f} ms")
    for part in PARTS:
        cells = (result[f"{part}_{name}"] for name in KINDS[:2])
        shown = "   ".join(f"{1000 * value:>9.0f} ms {value / base:+.3f}" for value in cells)
        print(f"+ {part.replace('_', ' '):<14}{shown}")
    for name in KINDS[:2]:
        whole, without = result[f"ratio_{name}"], result[f"ratio_{name}_without_wait"]
        print(f"{name} / GRPO: {whole:.3f}, without the wait {without:.3f}")
    print(f"targets: next_step in all, same_step without its wait: at most {TARGET}")


if __name__ == "__main__":
    main()
