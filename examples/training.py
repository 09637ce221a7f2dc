"""Running the CPU example from a Python program: training that resumes and shows its progress, and evaluation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from examples.children import child
from recipe.hdpo.evaluation.graders import REWARD_FILE, grader_name
from recipe.hdpo.tracking.folder_lock import FolderInUse, lock_folder

ROOT = Path(__file__).resolve().parents[1]
# Of what examples/cpu_demo.sh sets. Raise it with every change of a setting: results name it, and the settings of each
# version are pinned in tests/examples/test_scripts.py.
SETTINGS_VERSION = 2
# The longest response, as in training, and the environment of vLLM by itself.
MAX_TOKENS = 72
CPU = {"VERL_PLATFORM": "cpu", "VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}


def say(text: str) -> None:
    """Print a line of the program's own, told apart from the logs around it."""
    print(f"[hdpo] {text}", flush=True)


def python(*arguments: object, env: dict[str, str] | None = None) -> None:
    """Run a Python program of this checkout; leave with its exit code if it fails."""
    command = [sys.executable, *map(str, arguments)]
    try:
        with child(command, cwd=ROOT, env={**os.environ, **(env or {})}) as process:
            code = process.wait()
    except KeyboardInterrupt:
        sys.exit("[hdpo] stopped; the same command goes on from here")
    if code:
        sys.exit(f"[hdpo] stopped: `{' '.join(command)}` failed with exit code {code} (messages above)")


def copy_whole(source: Path, target: Path) -> None:
    """Copy a folder so that the copy is whole or absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        shutil.copytree(source, Path(temporary, "copy")).rename(target)


def train_with(overrides: list[str], steps: int, model: Path, data: Path, out: Path) -> None:
    """Run examples/cpu_demo.sh, or go on from its last checkpoint. A progress bar follows the metrics.

    A folder belongs to one set of settings; with others the program stops, and nothing in it is changed.
    """
    hold(out)
    claim(out, overrides)
    done = last_step(out)
    if done >= steps:
        say(f"{out.name} has its {steps} steps already")
        merge_metrics(out)
        return
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
        try:
            with child(command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT) as process:
                follow(process, part, done, steps)
        except KeyboardInterrupt:
            sys.exit(f"[hdpo] stopped; the same command goes on from the last checkpoint in {out / 'checkpoints'}")
    merge_metrics(out)
    if process.returncode or last_step(out) < steps:
        tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-25:])
        sys.exit(f"{tail}\n[hdpo] stopped: training failed (exit code {process.returncode}); whole log: {log}")


def hold(out: Path) -> None:
    """Keep other programs out of a folder until this one ends, or leave if another one is in it."""
    try:
        lock_folder(out)
    except FolderInUse as error:
        sys.exit(f"[hdpo] {error}")


def claim(out: Path, overrides: list[str]) -> None:
    """Write down a training folder's settings, or stop if it was made with others."""
    settings = {"version": [str(SETTINGS_VERSION)], "overrides": overrides, "grader": [grader_name(REWARD_FILE)]}
    path = out / "settings.json"
    if path.exists():
        old = json.loads(path.read_text())
        changed = [
            f"{key}: {_changes(old.get(key, []), new)}" for key, new in settings.items() if old.get(key, []) != new
        ]
        if changed:
            sys.exit(
                f"[hdpo] {out} was trained with other settings ({'; '.join(changed)}): use another --out, or remove "
                "that folder to train anew"
            )
        return
    if last_step(out):
        sys.exit(f"[hdpo] {out} has a checkpoint but no settings.json: use another --out, or remove that folder")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=1) + "\n")


def _changes(old: list[str], new: list[str]) -> str:
    gone, come = ([line for line in a if line not in b] for a, b in ((old, new), (new, old)))
    return f"{', '.join(gone) or 'nothing'} there, {', '.join(come) or 'nothing'} now"


def follow(process: subprocess.Popen, metrics: Path, done: int, steps: int) -> None:
    """Show training progress from the metrics file until the process ends: the clock runs on a terminal, and a log
    gets a line a step."""
    terminal = sys.stderr.isatty()
    with tqdm(total=steps, initial=done, desc="steps", unit="step") as bar:
        while True:
            ended = process.poll() is not None
            lines = metrics.read_bytes().split(b"\n")[:-1] if metrics.exists() else []
            before = bar.n
            if lines:
                entry = json.loads(lines[-1])
                values = entry["data"]
                bar.n = entry["step"]
                shown = {"reward": "critic/score/mean", "cliffs": "hdpo/cliff_rate", "kept": "hdpo/kept_trajectories"}
                bar.set_postfix({k: f"{values[v]:.2f}" for k, v in shown.items() if v in values}, refresh=False)
            if terminal or bar.n != before:
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


def evaluate(
    model: Path, problems: Path, out: Path, n: int, k: Sequence[int], seed: int = 1, max_tokens: int = MAX_TOKENS
) -> Path:
    """Greedy and sampled evaluation of a model or checkpoint on a parquet file; finished samples are kept."""
    arguments = ["--model", model, "--data", problems, "--out", out, "--n", n, "--k", *k]
    arguments += ["--step-check", "recipe.hdpo.step_check.arithmetic"]
    python("-m", "recipe.hdpo.evaluate", *arguments, "--max-tokens", max_tokens, "--seed", seed, env=CPU)
    return out
