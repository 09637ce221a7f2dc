"""Evaluate a model: n samples and one greedy response per problem, scored, saved one by one, summarised.

    python -m recipe.hdpo.evaluate --model MODEL --data test.parquet --out results/base --n 8 --k 1 4 8

MODEL is a Hugging Face folder or a verl checkpoint (.../global_step_N). The same command run again draws only
what is missing. ``--out`` gets meta.json, samples.jsonl (both never overwritten) and summary.json (made from
them each time).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from recipe.hdpo.evaluation.checkpoint import model_sha256, resolve_model, weights_dtype
from recipe.hdpo.evaluation.generate import Engine, Sampling
from recipe.hdpo.evaluation.passk import MAX_SAMPLES
from recipe.hdpo.evaluation.problems import Problem, ProblemSet, file_sha256, read_problems
from recipe.hdpo.evaluation.records import GREEDY, Meta, ResultWriter, Sample, read_results
from recipe.hdpo.evaluation.scoring import DEFAULT_REWARD, grader_sha256, load_reward, score_response
from recipe.hdpo.evaluation.summary import print_summary, summarise


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (2 after an error that the user can mend)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(argv)
    try:
        check_arguments(args)
        evaluate(args, shlex.join(["python", "-m", "recipe.hdpo.evaluate", *argv]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Stopped. What was drawn is in {args.out}; the same command draws the rest.", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m recipe.hdpo.evaluate", description="Draw, score and summarise n samples per problem."
    )
    p.add_argument("--model", required=True, help="Hugging Face folder, or verl checkpoint .../global_step_N")
    p.add_argument("--data", required=True, nargs="+", type=Path, help="verl parquet file(s)")
    p.add_argument("--out", required=True, type=Path, help="result folder; a second run goes on with it")
    p.add_argument("--n", type=int, default=8, help="samples per problem, besides the greedy one (default 8)")
    p.add_argument("--k", type=int, nargs="+", help="sizes k of pass@k and maj@k (default 1, 2, 4, ... <= n)")
    p.add_argument("--temperature", type=float, default=1.0, help="of the n samples (default 1.0)")
    p.add_argument("--top-p", type=float, default=1.0, help="nucleus of the n samples (default 1.0: all)")
    p.add_argument("--top-k", type=int, default=0, help="most likely tokens to sample from (default 0: all)")
    p.add_argument("--max-tokens", type=int, default=1024, help="longest response, tokens (default 1024)")
    p.add_argument("--seed", type=int, default=0, help="of the samples and of the intervals (default 0)")
    p.add_argument("--limit", type=int, help="evaluate only so many problems: always the same random choice")
    p.add_argument("--reward", default=DEFAULT_REWARD, help="FILE.py:FUNCTION (default: the recipe's reward.py)")
    p.add_argument("--success-reward", type=float, default=1.0, help="score from which a response is correct (1.0)")
    p.add_argument("--dtype", help="vLLM dtype (default: the model's on a GPU, float32 on the CPU)")
    p.add_argument("--batch-size", type=int, default=512, help="samples between two writes to disk (default 512)")
    p.add_argument("--gpu-memory-utilization", type=float, default=0.9, help="share of GPU memory (default 0.9)")
    p.add_argument("--tensor-parallel-size", type=int, default=1, help="GPUs per model (default 1)")
    return p


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for values that cannot be run, before anything slow happens."""
    if not 1 <= args.n <= MAX_SAMPLES:
        raise ValueError(f"--n {args.n}: must be from 1 to {MAX_SAMPLES} samples per problem.")
    bad_k = [k for k in args.k or [] if not 1 <= k <= args.n]
    if bad_k:
        raise ValueError(f"--k {bad_k[0]} with --n {args.n}: needs 1 <= k <= n. Raise --n or lower --k.")
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


def evaluate(args: argparse.Namespace, command: str) -> dict[str, Any]:
    """Everything that the command does; returns the summary (see :func:`evaluation.summary.summarise`)."""
    problems = read_problems(args.data, args.limit)
    if problems.duplicates:
        print(f"{len(problems.duplicates)} row(s) repeat another problem and count once: {problems.duplicates[:5]}")
    reward, reward_file = load_reward(args.reward)
    model = resolve_model(args.model, args.out)
    engine = Engine(model, args.dtype, args.gpu_memory_utilization, args.tensor_parallel_size)
    sampling = Sampling(args.n, args.temperature, args.top_p, args.top_k, args.max_tokens, args.seed)
    prompt_ids = engine.encode(problems.problems, args.max_tokens)
    meta = Meta(
        settings=_settings(args, problems, model, engine, reward_file, reward.__name__),
        problems=len(problems.problems),
        about={
            "model": str(model.resolve()),
            "data": [str(file.resolve()) for file in args.data],
            "duplicates": problems.duplicates,
            "command": command,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    )
    try:
        with ResultWriter(args.out, meta) as writer:
            if writer.cut_file:
                print(f"The last line was cut off: it is now in {writer.cut_file}, and its sample is drawn again.")
            _draw_missing(engine, prompt_ids, problems.problems, sampling, reward, writer, args.batch_size)
    finally:
        engine.close()
    summary = summarise(read_results(args.out), args.k, args.seed)
    part = args.out / f".summary.{os.getpid()}"
    part.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    os.replace(part, args.out / "summary.json")
    print(print_summary(summary))
    print(f"\nSamples: {args.out / 'samples.jsonl'}\nSummary: {args.out / 'summary.json'}")
    print(f"Next: python -m recipe.hdpo.compare baseline=OTHER_RESULTS this={args.out} --out report.html")
    return summary


def _draw_missing(
    engine: Engine,
    prompt_ids: dict[str, list[int]],
    problems: Sequence[Problem],
    sampling: Sampling,
    reward: Any,
    writer: ResultWriter,
    batch_size: int,
) -> None:
    from tqdm import tqdm

    by_id = {problem.id: problem for problem in problems}
    wanted = [(problem.id, i) for problem in problems for i in range(GREEDY, sampling.n)]
    missing = [key for key in wanted if key not in writer.done]
    if not missing:
        print(f"All {len(wanted)} samples are already in {writer.folder}.")
        return
    print(f"Drawing {len(missing)} of {len(wanted)} samples into {writer.folder}", flush=True)
    engine.load()
    with tqdm(total=len(wanted), initial=len(wanted) - len(missing), unit="sample") as progress:
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            samples = []
            for (id_, i), response in zip(batch, engine.respond(batch, prompt_ids, sampling), strict=True):
                problem = by_id[id_]
                score, answer = score_response(reward, problem, response.text)
                samples.append(
                    Sample(
                        problem_id=id_,
                        data_source=problem.data_source,
                        difficulty=problem.difficulty,
                        sample=i,
                        prompt=problem.prompt,
                        response=response.text,
                        answer=answer,
                        score=score,
                        tokens=response.tokens,
                        truncated=response.truncated,
                    )
                )
            writer.write(samples)
            progress.update(len(batch))


def _settings(
    args: argparse.Namespace,
    problems: ProblemSet,
    model: Path,
    engine: Engine,
    reward_file: Path,
    function: str,
) -> dict[str, Any]:
    """All that decides what the samples and their scores are."""
    sampled = ("n", "temperature", "top_p", "top_k", "max_tokens", "seed", "limit", "success_reward")
    return {
        **{name: getattr(args, name) for name in sampled},
        "data_sha256": [file_sha256(file) for file in args.data],
        "problems_sha256": problems.sha256(),
        "model_sha256": model_sha256(model),
        "weights_dtype": weights_dtype(model),
        "dtype": engine.dtype,
        "device": engine.device,
        "grader_sha256": grader_sha256(reward_file),
        "reward_function": function,
        **engine.versions,
    }


if __name__ == "__main__":
    sys.exit(main())
