"""Everything that matters on a single card, in under fourteen minutes: ``python -m benchmarks.gpu``.

    correct       values and gradients of the divergences against float64
    divergences   time and memory of JSD_k beside the alternatives, and its share of the card's memory bandwidth
    updates       verl's FSDP2 actor on a 1.5B model: HDPO's update beside GRPO's
    host_waits    how often an update waits for the card, and where
    head_correct  values and gradients of the fused head against float64
    head          its time and memory beside whole logits and verl's own fused head
    head_updates  the actor's update with whole logits and with the fused head

Each part is a process of its own with a time limit, writes OUT/PART.json as its figures come, and may fail alone. Needs
PyTorch, transformers and verl; Triton, Liger and flash-attn are used where they are installed. On a CPU
(``--device cpu``) the same parts run small, which shows that they work and measures nothing. docs/gpu.md has the tables
of the committed figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
# Seconds on a card. On a CPU nothing is lent by the minute.
LIMITS = {
    "correct": 60,
    "divergences": 80,
    "updates": 170,
    "host_waits": 60,
    "head_correct": 60,
    "head": 100,
    "head_updates": 270,
}
CPU_LIMIT = 900


def limit_of(part: str, device: str) -> int:
    """Seconds that a part may take."""
    return LIMITS[part] if device == "cuda" else CPU_LIMIT


def run_part(part: str, device: str, out: Path) -> str | None:
    """Run one part; None, or why it failed, which then stands in its file too."""
    limit = limit_of(part, device)
    path = out / f"{part}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"benchmarks.gpu.{part}", "--device", device, "--out", str(path)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))}
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=limit, env=env)
    except subprocess.TimeoutExpired as expired:
        why = f"stopped after {limit} s; what was measured until then is kept"
        shown = expired.stderr.decode(errors="replace") if isinstance(expired.stderr, bytes) else expired.stderr or ""
    else:
        if done.returncode == 0:
            return None
        why, shown = f"exit code {done.returncode}", done.stderr
    tail = shown.strip().splitlines()[-12:]
    content = json.loads(path.read_text()) if path.exists() else {"part": part, "figures": {}}
    path.write_text(json.dumps(content | {"status": f"failed: {why}", "error": tail}, indent=1) + "\n")
    return "\n".join([why, *tail])


def main() -> None:
    """Run the parts; exit code 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"), help="folder of the JSON files")
    parser.add_argument("--parts", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for part in args.parts:
        print(f"[gpu] {part}, at most {limit_of(part, args.device)} s", flush=True)
        begin = time.perf_counter()
        why = run_part(part, args.device, args.out)
        print(f"[gpu] {part}: {'done' if why is None else why}, {time.perf_counter() - begin:.0f} s", flush=True)
        if why is not None:
            failed.append(part)
    print(f"[gpu] figures: {args.out.resolve()}")
    sys.exit(f"[gpu] failed: {', '.join(failed)}" if failed else None)


if __name__ == "__main__":
    main()
