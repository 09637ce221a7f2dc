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
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any

from recipe.hdpo.algorithm.leakage import read_phrases, reference_pattern
from recipe.hdpo.algorithm.privileged_prompt import text_at
from recipe.hdpo.evaluation.arguments import check_arguments, parser
from recipe.hdpo.evaluation.checkpoint import model_sha256, resolve_model, weights_dtype
from recipe.hdpo.evaluation.drawing import draw_missing, settings_of, warn_of_open_thoughts
from recipe.hdpo.evaluation.generate import Engine, Sampling
from recipe.hdpo.evaluation.leaks import DECIDES, SignReader, correct_samples, how_measured, leakage_line, step_figures
from recipe.hdpo.evaluation.problems import ProblemSet, read_problems
from recipe.hdpo.evaluation.records import SUMMARY, Meta, Results, read_results
from recipe.hdpo.evaluation.scoring import load_reward, score_response
from recipe.hdpo.evaluation.summary import print_summary, summarise
from recipe.hdpo.evaluation.writer import ResultWriter

# That a check of steps may take for one response.
STEP_CHECK_SECONDS = 10.0


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


def evaluate(args: argparse.Namespace, command: str) -> dict[str, Any]:
    """Everything that the command does; returns the summary (see :func:`evaluation.summary.summarise`)."""
    problems = read_problems(args.data, args.limit)
    if problems.duplicates:
        print(f"{len(problems.duplicates)} row(s) repeat another problem and count once: {problems.duplicates[:5]}")
    reward, reward_file = load_reward(args.reward)
    score = partial(score_response, partial(reward, **args.reward_kwargs))
    model = resolve_model(args.model, args.out)
    engine = Engine(model, args.dtype, args.gpu_memory_utilization, args.tensor_parallel_size)
    sampling = Sampling(args.n, args.temperature, args.top_p, args.top_k, args.max_tokens, args.seed)
    prompt_ids = engine.encode(problems.problems, args.max_tokens, args.chat_template_kwargs)
    warn_of_open_thoughts(args, engine, prompt_ids, reward_file)
    meta = Meta(
        settings=settings_of(args, sampling, engine, reward_file, reward.__name__)
        | {
            "problems_sha256": problems.sha256(),
            "model_sha256": model_sha256(model),
            "weights_dtype": weights_dtype(model),
        },
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
            draw_missing(engine, prompt_ids, problems.problems, sampling, score, writer, args.batch_size)
    finally:
        engine.close()
    results = read_results(args.out)
    summary = summarise(results, args.k, args.seed)
    summary["leakage"] = leakage(args, results, problems, engine.tokens)
    part = args.out / f".summary.{os.getpid()}"
    part.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    os.replace(part, args.out / SUMMARY)
    print(print_summary(summary))
    if summary["leakage"]["rollouts"]:
        print(leakage_line(summary["leakage"]))
    print(f"\nSamples: {args.out / 'samples.jsonl'}\nSummary: {args.out / 'summary.json'}")
    print(f"Next: python -m recipe.hdpo.compare baseline=OTHER_RESULTS this={args.out} --out report.html")
    return summary


def leakage(
    args: argparse.Namespace, results: Results, problems: ProblemSet, tokens: Callable[[str], list[int]]
) -> dict[str, Any]:
    """Signs of copying and valid steps in the correct samples, held against the rows' worked solutions."""
    correct = correct_samples(results)
    worked = {p.id: text_at(p.row, args.solution_key, join=args.join_texts) for p in problems.problems}
    known = {id_: text for id_, text in worked.items() if text}
    pattern = reference_pattern(read_phrases(args.phrases) if args.phrases else ())
    reader = SignReader(tokens, {id_: text or "" for id_, text in worked.items()}, known, pattern)
    steps = step_figures(correct, args.step_check, STEP_CHECK_SECONDS, args.seed) if args.step_check else {}
    return reader.table(correct, args.seed) | steps | {DECIDES: how_measured(args)}


if __name__ == "__main__":
    sys.exit(main())
