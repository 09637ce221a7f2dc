"""Faults, tried on a real training: what ends, how soon, and what is lost.

    python -m tests.drills NAME ...

Each takes one to three starts of the CPU stack (minutes) and ends by itself. Run one at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from examples.training import ROOT
from tests.drills.training import END_WITHIN, SETTINGS, START_WITHIN, Run, fresh, program, training


def _kill(run: Run, title: str) -> None:
    victim = run.find(title)
    print(f"[drill] killing {victim.pid} ({title}) after steps {run.steps()}")
    victim.kill()
    seconds = run.wait_for_end()
    print(f"[drill] all of it ended after {seconds:.0f} s")
    # Whichever sees it first: the watchdog, or the step whose rollouts were lost.
    run.say("the run cannot go on", "rollouts were lost")


def engine_killed() -> None:
    """The engine's process dies in the middle of a rollout phase."""
    with training(fresh("engine_killed")) as run:
        run.wait(lambda: 1 in run.steps(), START_WITHIN, "first step")
        _kill(run, "EngineCore")


def engine_killed_before_sync() -> None:
    """The engine's process dies while a checkpoint is written, before it is sent the new weights."""
    out = fresh("engine_killed_before_sync")
    with training(out) as run:
        run.wait((out / "checkpoints/global_step_2/actor").exists, START_WITHIN, "second checkpoint")
        _kill(run, "EngineCore")


def server_killed() -> None:
    """The server of the engine, a Ray actor, dies."""
    with training(fresh("server_killed")) as run:
        run.wait(lambda: 1 in run.steps(), START_WITHIN, "first step")
        _kill(run, "ray::vLLMHttpServer")


def agent_worker_killed() -> None:
    """An agent-loop worker dies."""
    with training(fresh("agent_worker_killed")) as run:
        run.wait(lambda: 1 in run.steps(), START_WITHIN, "first step")
        _kill(run, "ray::HDPOAgentLoopWorker")


def reward_hangs() -> None:
    """The first reward call never returns."""
    settings = ["hdpo.reward_timeout=10", "trainer.total_training_steps=2"]
    reward = "reward.custom_reward_function.path=tests/drills/hanging_reward.py"
    out = fresh("reward_hangs")
    with training(out, *settings, reward) as run:
        run.wait(lambda: run.steps() == [1, 2], START_WITHIN + END_WITHIN, "second step")
        run.wait_for_end()
    [metrics] = out.glob("metrics*.jsonl")
    for line in metrics.read_text().splitlines():
        values = json.loads(line)["data"]
        names = ("hdpo/lost_rollouts", "hdpo/unscored_rollouts", "timing_s/gen")
        print(f"[drill] step {json.loads(line)['step']}: " + ", ".join(f"{n} {values[n]:g}" for n in names))
    run.say("has not returned within")


def _demo(out: Path) -> list[str]:
    return [sys.executable, "-m", "examples.demo.run", "--steps", "1000", "--out", str(out), *SETTINGS[:2], SETTINGS[3]]


def sigterm() -> None:
    """SIGTERM to the demo in the middle of its training."""
    out = fresh("sigterm")
    with program(_demo(out), out) as run:
        arm = Run(run.process, out / "hdpo", out / "hdpo/train.log")
        arm.wait(lambda: 1 in arm.steps(), START_WITHIN, "first step")
        run.note_processes()
        print(f"[drill] SIGTERM to {run.process.pid} with {len(run.seen)} child processes, after steps {arm.steps()}")
        os.kill(run.process.pid, signal.SIGTERM)
        print(f"[drill] all of it ended after {run.wait_for_end():.0f} s")
        run.say("stopped")
    print(f"[drill] mark: {(out / 'hdpo/checkpoints/latest_checkpointed_iteration.txt').read_text()}")


def two_runs_one_folder() -> None:
    """The demo is started a second time in the same folder."""
    out = fresh("two_runs_one_folder")
    with program(_demo(out), out) as run:
        run.wait(lambda: "3/5 training" in run.text(), START_WITHIN, "training")
        began = time.monotonic()
        second = subprocess.run(_demo(out), cwd=ROOT, capture_output=True, text=True, timeout=END_WITHIN)
        print(f"[drill] the second one ended after {time.monotonic() - began:.0f} s with {second.returncode}")
        print(f"[drill] it said: {second.stderr.strip().splitlines()[-1]}")
        print(f"[drill] the first one, {run.process.pid}, runs on: {run.process.poll() is None}")


def checkpoint_cut_short() -> None:
    """The last checkpoint's optimizer is cut short, and the run is started again."""
    out = fresh("checkpoint_cut_short")
    with training(out, "trainer.total_training_steps=2") as run:
        run.wait(lambda: run.process.poll() is not None, START_WITHIN + END_WITHIN, "end")
    shard = out / "checkpoints/global_step_2/actor/optim_world_size_1_rank_0.pt"
    os.truncate(shard, shard.stat().st_size // 2)
    with training(out, "trainer.total_training_steps=3") as run:
        run.wait(lambda: run.process.poll() is not None, START_WITHIN + END_WITHIN, "end")
    print(f"[drill] exit code {run.process.returncode}; steps of both starts: {run.steps()}")
    kept = sorted(path.parent.name for path in (out / "checkpoints").glob("*/actor"))
    print(f"[drill] checkpoints with weights: {kept}")
    run.say("the newest whole checkpoint", "deleting")


DRILLS: dict[str, Callable[[], None]] = {
    drill.__name__: drill
    for drill in (
        engine_killed,
        engine_killed_before_sync,
        server_killed,
        agent_worker_killed,
        reward_hangs,
        sigterm,
        two_runs_one_folder,
        checkpoint_cut_short,
    )
}


def main() -> None:
    """Parse the command line and run the drills."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=DRILLS, metavar="NAME", help=", ".join(DRILLS))
    for name in parser.parse_args().names:
        print(f"[drill] {name}: {DRILLS[name].__doc__}", flush=True)
        DRILLS[name]()


if __name__ == "__main__":
    main()
