"""How often one update waits for the device, and at which lines.

On CUDA PyTorch names every call that waits (``torch.cuda.set_sync_debug_mode``); a wait is counted at the innermost
line of this recipe or of verl that led to it. One mini-batch of two prompts' rollouts, once by verl's own loss function
and once with kept trajectories, cut into several micro-batches of a small model with the full vocabulary. A CPU has
nothing to wait for: there the reads of single numbers are counted instead, which shows that the part runs, and no more.
"""

from __future__ import annotations

import random
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu.actor import QWEN_1_5B, TINY, become_the_only_rank, make_job, make_rows, model_folder
from benchmarks.gpu.recording import Record, part_arguments

# Two layers: what is counted does not depend on the model.
SMALL = QWEN_1_5B | dict(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4)


def where() -> str:
    """The innermost line of this recipe or of verl on the stack."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename).as_posix()
        for package in ("recipe/hdpo/", "site-packages/verl/", ".site/verl/", "/verl/"):
            if package in path and "benchmarks" not in path:
                inside = path.split(package)[-1]
                return f"{'recipe/hdpo' if 'recipe' in package else 'verl'}/{inside}:{frame.lineno} {frame.name}"
    return "elsewhere"


class _Reads(TorchDispatchMode):
    """Counts the reads of single numbers."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.counts[where()] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_waits(device: str) -> Iterator[Counter[str]]:
    """Waits by line while it is open."""
    counts: Counter[str] = Counter()
    if device == "cpu":
        with _Reads(counts):
            yield counts
        return

    def note(message: Any, category: Any, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message):
            counts[where()] += 1

    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield counts
        finally:
            torch.cuda.set_sync_debug_mode("default")


def count(record: Record, name: str, device: str, update: Callable[[], object]) -> Counter[str]:
    """Waits of one update, after one that warms up."""
    update()
    with counted_waits(device) as counts:
        update()
    ours = {line: n for line, n in counts.most_common() if line.startswith("recipe/")}
    others = {line: n for line, n in counts.most_common(12) if not line.startswith("recipe/")}
    record.add(name, waits=counts.total(), at_our_lines=sum(ours.values()), ours=ours, most_of_the_others=others)
    return counts


def main() -> None:
    """Run the part."""
    args = part_arguments(__doc__)
    on_card = args.device == "cuda"
    become_the_only_rank(args.device)
    from benchmarks.gpu.updates import Bench, K

    record = Record(args.out, "host_waits", args.device)
    shape, scale = (SMALL, 0.2) if on_card else (TINY, 0.04)
    rng = random.Random(0)
    rollouts = make_rows(rng, 2 * K, scale, shape["vocab_size"])
    kept = make_rows(rng, 8, scale, shape["vocab_size"], teacher_prompt=True)
    benches = {}
    with model_folder(shape, args.device) as folder:
        for fused in (False, True):
            hdpo = {"distillation_loss_coef": 0.1, "fused_head": fused}
            job = make_job(folder, rollouts, args.device, hdpo=hdpo)
            job.max_tokens = 1024 if on_card else 512
            benches[fused] = Bench(job, args.device)
    micro_batches = -(-sum(len(row.prompt) + len(row.response) for row in rollouts) // job.max_tokens)
    record.setting(rollouts=len(rollouts), kept=len(kept), micro_batches_at_least=micro_batches)
    count(record, "GRPO", args.device, lambda: benches[False].update(job, None))
    count(record, "HDPO", args.device, lambda: benches[False].update(job, kept))
    count(record, "HDPO, fused head", args.device, lambda: benches[True].update(job, kept))
    record.finish()
    sys.exit(None)


if __name__ == "__main__":
    main()
