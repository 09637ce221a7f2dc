"""A training of the CPU example to do harm to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from data_preprocess import sums
from examples.children import child
from examples.demo.run import BASE_MODEL
from examples.training import ROOT

OUT = ROOT / "outputs" / "drills"
# Small steps, a checkpoint after each.
SETTINGS = [
    "data.train_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "trainer.total_training_steps=1000",
    "trainer.save_freq=1",
]
START_WITHIN, END_WITHIN = 420.0, 240.0


@dataclass
class Run:
    """A program that runs, and every process that it has ever been seen to have started."""

    process: subprocess.Popen
    out: Path
    log: Path
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    def text(self) -> str:
        """Its console so far."""
        return self.log.read_text(errors="replace")

    def steps(self) -> list[int]:
        """The steps that it has logged."""
        lines = [line for path in self.out.glob("metrics*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
        return sorted(json.loads(line)["step"] for line in lines)

    def note_processes(self) -> None:
        """Remember its processes, to know later whether they are gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                self.seen.setdefault(process.pid, process)

    def wait(self, until: Callable[[], bool], limit: float, what: str) -> float:
        """Wait for something; returns the seconds. Leaves the program where it does not come."""
        began = time.monotonic()
        while not until():
            if time.monotonic() - began > limit:
                sys.exit(f"[drill] after {limit:.0f} s there is still no {what}; log: {self.log}")
            if self.process.poll() is not None and what != "end":
                sys.exit(f"[drill] it ended with {self.process.returncode} before there was a {what}; log: {self.log}")
            time.sleep(0.2)
        return time.monotonic() - began

    def find(self, title: str) -> psutil.Process:
        """One of its processes, by a part of its title."""
        self.note_processes()
        for process in self.seen.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                if title in " ".join(process.cmdline()):
                    return process
        sys.exit(f"[drill] no process is called {title}")

    def wait_for_end(self) -> float:
        """Until it and all its processes are gone; returns the seconds."""
        self.note_processes()
        began = time.monotonic()
        self.wait(lambda: self.process.poll() is not None, END_WITHIN, "end")
        gone, alive = psutil.wait_procs(list(self.seen.values()), timeout=120)
        print(f"[drill] exit code {self.process.returncode}; {len(gone)} child processes gone, {len(alive)} left")
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                print(f"[drill] still there: {process.pid} {' '.join(process.cmdline())[:100]}")
        return time.monotonic() - began

    def say(self, *needles: str) -> None:
        """Print the last line of the console that holds each text."""
        for needle in needles:
            lines = [line for line in self.text().splitlines() if needle in line]
            print(f"[drill] {needle!r}: {lines[-1].strip()[-600:] if lines else 'never said'}")


def fresh(name: str) -> Path:
    """An empty folder for a drill, and the data beside it."""
    out = OUT / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if not (OUT / "data").exists():
        sums.main(["--out", str(OUT / "data"), "--train-size", "64", "--test-size", "5"])
    return out


@contextlib.contextmanager
def program(command: list[str], out: Path, **env: str) -> Iterator[Run]:
    """A program of this checkout, with its console in a file."""
    log = out / "drill.log"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {"PYTHONPATH": path, "VERL_USE_EXTERNAL_MODULES": "tests.drills.patient_ray", **env}
    with (
        log.open("a") as file,
        child(command, cwd=ROOT, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        yield Run(process, out, log)


def command(*overrides: str) -> list[str]:
    """``examples/cpu_demo.sh`` in small steps; see :func:`environment`."""
    return ["bash", "examples/cpu_demo.sh", *SETTINGS, *overrides]


def environment(out: Path) -> dict[str, str]:
    """What the script reads: the study's base model, the drills' data, a file of metrics for this start."""
    metrics = out / f"metrics.{len(list(out.glob('metrics*')))}.jsonl"
    return {
        "MODEL": str(BASE_MODEL),
        "DATA": str(OUT / "data"),
        "OUT": str(out),
        "METRICS": str(metrics),
        "PYTHON": sys.executable,
    }


def demo(out: Path) -> list[str]:
    """The demo, in small steps."""
    return [sys.executable, "-m", "examples.demo.run", "--steps", "1000", "--out", str(out), *SETTINGS[:2], SETTINGS[3]]


@contextlib.contextmanager
def training(out: Path, *overrides: str) -> Iterator[Run]:
    """A training to do harm to."""
    with program(command(*overrides), out, **environment(out)) as run:
        yield run
