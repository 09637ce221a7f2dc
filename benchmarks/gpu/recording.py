"""What a part of the benchmark writes: one JSON file, brought up to date the moment a figure is there."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "triton", "transformers", "verl", "tensordict", "liger-kernel", "flash-attn")


class Record:
    """The figures of one part.

    Example:
        ``Record(Path("correct.json"), "correct", "cpu").add("jsd, fp32", error=1e-7)``

    Args:
        path: the file; a folder that is missing is made.
        part: name of the part.
        device: "cuda" or "cpu".
    """

    def __init__(self, path: Path, part: str, device: str) -> None:
        self.path, self.begin = path, time.perf_counter()
        self.content: dict[str, Any] = {
            "part": part,
            "status": "stopped early",
            "environment": environment(device),
            "setting": {},
            "figures": {},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def setting(self, **values: Any) -> None:
        """What the figures were measured at."""
        self.content["setting"] |= values
        self._write()

    def add(self, name: str, **figures: Any) -> None:
        """One line of the part's table, written at once and shown."""
        self.content["figures"][name] = figures
        shown = ", ".join(f"{key} {_short(value)}" for key, value in figures.items())
        print(f"{name}: {shown}", flush=True)
        self._write()

    def finish(self) -> None:
        """All figures are there."""
        self.content["status"] = "complete"
        self._write()

    def _write(self) -> None:
        self.content["seconds"] = round(time.perf_counter() - self.begin, 1)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)


def part_arguments(description: str | None) -> argparse.Namespace:
    """What every part is told on its command line."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--out", type=Path, required=True, help="the part's JSON file")
    return parser.parse_args()


def environment(device: str) -> dict[str, Any]:
    """Card, driver and versions."""
    found: dict[str, Any] = {"device": device, "python": platform.python_version(), "cpus": os.cpu_count()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "memory_gib": round(card.total_memory / 2**30, 1), "cuda": torch.version.cuda}
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            found["driver"] = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.strip()
        except OSError:
            found["driver"] = None
    return found


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
