"""The command line of ``python -m recipe.hdpo.evaluate``, and what other commands that sample a model share of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from recipe.hdpo.algorithm.leakage import read_phrases
from recipe.hdpo.evaluation.passk import MAX_SAMPLES
from recipe.hdpo.evaluation.scoring import DEFAULT_REWARD
from recipe.hdpo.step_check import load_step_check


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m recipe.hdpo.evaluate", description="Draw, score and summarise n samples per problem."
    )
    p.add_argument("--n", type=int, default=8, help="samples per problem, besides the greedy one (default 8)")
    p.add_argument("--k", type=int, nargs="+", help="sizes k of pass@k and maj@k (default 1, 2, 4, ... <= n)")
    p.add_argument("--limit", type=int, help="evaluate only so many problems: always the same random choice")
    p.add_argument("--solution-key", default="extra_info.solution", help="the worked solution, for signs of copying")
    p.add_argument("--join-texts", action="store_true", help="as hdpo.privileged.join_texts=true")
    p.add_argument("--phrases", type=Path, help="more phrases that speak of a reference, one regular expression a line")
    p.add_argument("--step-check", help="check of steps, as hdpo.privileged.step_check (default: none)")
    add_common(p)
    return p


def add_common(p: argparse.ArgumentParser) -> None:
    """The arguments of every command that samples a model."""
    p.add_argument("--model", required=True, help="Hugging Face folder, or verl checkpoint .../global_step_N")
    p.add_argument("--data", required=True, nargs="+", type=Path, help="verl parquet file(s)")
    p.add_argument("--out", required=True, type=Path, help="result folder; a second run goes on with it")
    p.add_argument("--temperature", type=float, default=1.0, help="of the n samples (default 1.0)")
    p.add_argument("--top-p", type=float, default=1.0, help="nucleus of the n samples (default 1.0: all)")
    p.add_argument("--top-k", type=int, default=0, help="most likely tokens to sample from (default 0: all)")
    p.add_argument("--max-tokens", type=int, default=1024, help="longest response, tokens (default 1024)")
    p.add_argument("--seed", type=int, default=0, help="of the samples and of the intervals (default 0)")
    p.add_argument("--reward", default=DEFAULT_REWARD, help="FILE.py:FUNCTION (default: the recipe's reward.py)")
    p.add_argument("--reward-kwargs", type=json_object, default={}, help="of the reward function, as a JSON object")
    p.add_argument(
        "--chat-template-kwargs",
        type=json_object,
        default={},
        help="data.apply_chat_template_kwargs, as JSON",
    )
    p.add_argument("--success-reward", type=float, default=1.0, help="score from which a response is correct (1.0)")
    p.add_argument("--dtype", help="vLLM dtype (default: the model's on a GPU, float32 on the CPU)")
    p.add_argument("--batch-size", type=int, default=512, help="samples between two writes to disk (default 512)")
    p.add_argument("--gpu-memory-utilization", type=float, default=0.9, help="share of GPU memory (default 0.9)")
    p.add_argument("--tensor-parallel-size", type=int, default=1, help="GPUs per model (default 1)")


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for values that cannot be run, before anything slow happens."""
    check_common(args)
    bad_k = [k for k in args.k or [] if not 1 <= k <= args.n]
    if bad_k:
        raise ValueError(f"--k {bad_k[0]} with --n {args.n}: needs 1 <= k <= n. Raise --n or lower --k.")
    if args.phrases:
        read_phrases(args.phrases)
    if args.step_check:
        load_step_check(args.step_check)


def check_common(args: argparse.Namespace) -> None:
    """The same for the arguments of :func:`add_common` and ``--n``."""
    if not 1 <= args.n <= MAX_SAMPLES:
        raise ValueError(f"--n {args.n}: must be from 1 to {MAX_SAMPLES} samples per problem.")
    if args.temperature <= 0 and args.n > 1:
        raise ValueError(
            f"--temperature {args.temperature} would make all {args.n} samples equal; the greedy response "
            "is drawn "
            "anyway. Pass a temperature above 0."
        )
    if args.temperature < 0:
        raise ValueError(f"--temperature {args.temperature}: must not be negative.")
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: must be 0 or more.")
    for name in ("max_tokens", "batch_size", "tensor_parallel_size"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be at least 1.")
    if not 0 < args.top_p <= 1 or args.top_k < 0:
        raise ValueError(f"--top-p {args.top_p} --top-k {args.top_k}: need 0 < top-p <= 1 and top-k >= 0 (0: all).")


def json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not JSON that can be read ({error})") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object, such as {{"enable_thinking": false}}')
    return value
