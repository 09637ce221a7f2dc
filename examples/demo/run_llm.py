"""A real language model on real word problems: SmolLM2-135M-Instruct on ``gsm_symbolic``, a few steps of HDPO on a CPU.

    python -m examples.demo.run_llm [--steps 3] [--out outputs/demo-llm] [KEY=VALUE ...]

It fails nearly all of them, so the cliffs are real. At the end one kept cliff is shown from end to end: problem,
privileged prompt, trajectory, and the divergence of every token between the model with and without the solution.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from examples.training import hold, python, say, train_with
from recipe.hdpo.tracking.kept_text import kept_files

OVERRIDES = [
    "data.train_batch_size=8",
    "data.max_prompt_length=320",
    "data.max_response_length=160",
    "data.filter_overlong_prompts=true",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048",
    "actor_rollout_ref.actor.optim.lr=1e-6",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.rollout.max_model_len=1024",
    "hdpo.privileged.n=4",
    "hdpo.privileged.template=null",
    "trainer.save_freq=1000",
]


def main() -> None:
    """Parse the command line, make model and data, train, show one cliff."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3, help="training steps (default 3)")
    parser.add_argument("--out", type=Path, default=Path("outputs/demo-llm"), help="folder for everything")
    args, overrides = parser.parse_known_args()
    out = args.out.resolve()
    model, data, rollouts = out / "model", out / "data", out / "run" / "rollouts"
    say(f"everything goes to {out}")
    hold(out)
    # Most of the time goes to forward and backward of one process.
    os.environ.setdefault("OMP_NUM_THREADS", str(min(4, os.cpu_count() or 1)))
    say("1/3 model")
    python("-m", "examples.demo.make_smollm2", "--out", model)
    say("2/3 data")
    if not (data / "test.parquet").exists():
        python("-m", "data_preprocess.gsm_symbolic", "--out", data, "--train-size", 200, "--test-size", 20)
    say(f"3/3 training, {args.steps} steps")
    settings = [*OVERRIDES, f"trainer.rollout_data_dir={rollouts}", *overrides]
    train_with(settings, args.steps, model, data, out / "run")
    kept = kept_files(rollouts)
    if kept:
        python("-m", "examples.demo.show_cliff", kept[0], model)
    else:
        say("no privileged rollout came out correct in these few steps, so there is nothing to show: try --steps 6")
    python("-m", "recipe.hdpo.cliffs", rollouts)
    say(f"done; metrics: {out / 'run' / 'metrics.jsonl'}; all rollouts and kept trajectories: {rollouts}")
    say("next: make demo, or your own data and model: docs/own_job.md")


if __name__ == "__main__":
    main()
