"""Something dies in the middle of a training."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.drills.training import START_WITHIN, Run, demo, fresh, program, training


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


def actor_killed() -> None:
    """The process that holds the weights dies in the middle of a step, and the run is started again."""
    out = fresh("actor_killed")
    with training(out) as run:
        run.wait(lambda: 2 in run.steps(), START_WITHIN, "second step")
        _kill(run, "ray::WorkerDict")
    _go_on(out)


def driver_killed() -> None:
    """The program that was started is killed with SIGKILL in the middle of a step, and started again."""
    out = fresh("driver_killed")
    with training(out) as run:
        run.wait(lambda: 2 in run.steps(), START_WITHIN, "second step")
        run.note_processes()
        print(f"[drill] SIGKILL to {run.process.pid} with {len(run.seen)} child processes, after steps {run.steps()}")
        run.process.kill()
        print(f"[drill] all of it ended after {run.wait_for_end():.0f} s")
    _go_on(out)


def _go_on(out: Path) -> None:
    """Start the run again, for one step more than the last that was logged."""
    with training(out) as run:
        last = max(run.steps())
        run.wait(lambda: max(run.steps()) > last, START_WITHIN, "step after the second start")
        print(f"[drill] steps of both starts: {run.steps()}")
        run.say("setting global step to", "the newest whole checkpoint")


def sigterm() -> None:
    """SIGTERM to the demo in the middle of its training."""
    out = fresh("sigterm")
    with program(demo(out), out) as run:
        arm = Run(run.process, out / "hdpo", out / "hdpo/train.log")
        arm.wait(lambda: 1 in arm.steps(), START_WITHIN, "first step")
        run.note_processes()
        print(f"[drill] SIGTERM to {run.process.pid} with {len(run.seen)} child processes, after steps {arm.steps()}")
        os.kill(run.process.pid, signal.SIGTERM)
        print(f"[drill] all of it ended after {run.wait_for_end():.0f} s")
        run.say("stopped")
    print(f"[drill] mark: {(out / 'hdpo/checkpoints/latest_checkpointed_iteration.txt').read_text()}")
