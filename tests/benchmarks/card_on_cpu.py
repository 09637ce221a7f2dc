"""All parts of the benchmark of a single card, small and on the CPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import run
from typing import Any

from benchmarks.gpu.__main__ import LIMITS

ROOT = Path(__file__).parents[2]
IN_TURN = f"""
import runpy, sys
from types import SimpleNamespace
from benchmarks.gpu import own_process

def from_this_process(function, *args):
    sent = []
    function(SimpleNamespace(send=sent.append), *args)
    return sent

own_process.from_own_process = from_this_process
out = sys.argv[1]
for part in {list(LIMITS)!r}:
    sys.argv = [part, "--device", "cpu", "--out", f"{{out}}/{{part}}.json"]
    try:
        runpy.run_module(f"benchmarks.gpu.{{part}}", run_name="__main__")
    except SystemExit as end:
        if end.code is not None:
            raise
"""


def figures(out: Path, env: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What all parts write, by part.

    ``python -m benchmarks.gpu`` starts an interpreter for each, and ``head_updates`` one for each head; here one runs
    them in turn, since importing verl takes longer than any part.
    """
    done = run([sys.executable, "-c", IN_TURN, str(out)], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {part: json.loads((out / f"{part}.json").read_text()) for part in LIMITS}
