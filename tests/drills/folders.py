"""Two runs in one folder, and checkpoints that are not whole."""

from __future__ import annotations

import os
import shlex
import subprocess
import time

from examples.training import ROOT
from tests.drills.training import END_WITHIN, START_WITHIN, command, demo, environment, fresh, program, training


def two_runs_one_folder() -> None:
    """The demo is started a second time in the same folder."""
    out = fresh("two_runs_one_folder")
    with program(demo(out), out) as run:
        run.wait(lambda: "4/6 training" in run.text(), START_WITHIN, "training")
        began = time.monotonic()
        second = subprocess.run(demo(out), cwd=ROOT, capture_output=True, text=True, timeout=END_WITHIN)
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


def disk_full() -> None:
    """The disk of the checkpoints is full at the second one; the run is started again with room."""
    out = fresh("disk_full")
    folder = out / "checkpoints"
    folder.mkdir()
    train = shlex.join(command("trainer.total_training_steps=4"))
    # A disk of its own, in a mount namespace that holds both starts. A checkpoint takes about 14 MB: a second one does
    # not fit.
    script = f"""
mount -t tmpfs -o size=24m tmpfs {shlex.quote(str(folder))}
set +e
{train}
echo "[drill] first start: exit code $?"
df -h {shlex.quote(str(folder))} | tail -1
ls -A {shlex.quote(str(folder))}
mount -o remount,size=400m {shlex.quote(str(folder))}
export METRICS={shlex.quote(str(out / "metrics.1.jsonl"))}
{train}
echo "[drill] second start: exit code $?"
ls -A {shlex.quote(str(folder))}
"""
    namespace = ["unshare", "--map-root-user", "--mount", "bash", "-c", script]
    with program(namespace, out, **environment(out)) as run:
        run.wait(lambda: run.process.poll() is not None, 2 * START_WITHIN + END_WITHIN, "end")
    print(f"[drill] steps of both starts: {run.steps()}")
    lines = run.text().splitlines()
    print("\n".join(line for line in lines if line.startswith(("[drill]", "global_step", "tmpfs"))))
    run.say("No space left", "the newest whole checkpoint", "setting global step to")
