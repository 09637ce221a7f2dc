"""The command line of ``python -m recipe.hdpo.preflight``."""

from __future__ import annotations

import argparse
from pathlib import Path

from recipe.hdpo.algorithm.message_template import compile_template
from recipe.hdpo.config.privileged import PLACEMENTS, check_source
from recipe.hdpo.evaluation.arguments import add_common, check_common, json_object
from recipe.hdpo.evaluation.passk import MAX_SAMPLES

SOURCES = ("solution", "prefix:0.5", "answer")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m recipe.hdpo.preflight",
        description="Is HDPO for this model and data? Samples some problems with and without their solutions.",
    )
    p.add_argument("--n", type=int, default=16, help="K, plain rollouts per problem, training's rollout.n (default 16)")
    p.add_argument("--privileged-n", type=int, default=4, help="J, privileged rollouts per problem (default 4)")
    p.add_argument("--limit", type=int, default=200, help="problems: always the same random choice (default 200)")
    p.add_argument(
        "--sources",
        nargs="+",
        default=list(SOURCES),
        metavar="SOURCE",
        help=f"what privileged prompts show: solution, answer, prefix:SHARE (default {' '.join(SOURCES)})",
    )
    p.add_argument("--solution-key", default="extra_info.solution", help="as hdpo.privileged.solution_key")
    p.add_argument("--answer-key", default="reward_model.ground_truth", help="as hdpo.privileged.answer_key")
    p.add_argument("--join-texts", action="store_true", help="as hdpo.privileged.join_texts=true")
    p.add_argument("--template", help="as hdpo.privileged.template: Jinja2 text, or @FILE")
    p.add_argument("--placement", choices=PLACEMENTS, default="user", help="as hdpo.privileged.placement (user)")
    p.add_argument(
        "--privileged-chat-template-kwargs",
        type=json_object,
        default={},
        help="as hdpo.privileged.chat_template_kwargs, as JSON",
    )
    p.add_argument("--max-prompt-length", type=int, help="data.max_prompt_length of training: longer ones are left out")
    p.add_argument("--max-privileged-prompt-length", type=int, help="the same for privileged prompts")
    p.add_argument("--train-batch-size", type=int, default=64, help="prompts of a step, for its cost (default 64)")
    p.add_argument("--phrases", type=Path, help="more phrases that speak of a reference, one regular expression a line")
    add_common(p)
    return p


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for values that cannot be run, before anything slow happens."""
    check_common(args)
    if args.n < 2:
        raise ValueError(f"--n {args.n}: a group of rollouts needs 2 or more, as in training.")
    if not 1 <= args.privileged_n <= MAX_SAMPLES:
        raise ValueError(f"--privileged-n {args.privileged_n}: must be from 1 to {MAX_SAMPLES} samples per problem.")
    if args.temperature <= 0:
        raise ValueError(f"--temperature {args.temperature}: rollouts are sampled; pass training's, above 0.")
    for source in args.sources:
        check_source("--sources ", source)
    if "feedback" in args.sources:
        raise ValueError(
            "--sources feedback shows failed rollouts of a training step, and none are here: leave it out. "
            "`hdpo/rung_solve_rate/feedback`, or `hdpo/privileged_solve_rate`, says in training what it solves."
        )
    if "problem" in args.sources:
        raise ValueError("--sources problem shows nothing: those are the plain rollouts. Leave it out.")
    if len(set(args.sources)) < len(args.sources):
        raise ValueError(f"--sources {' '.join(args.sources)}: each of them once, please.")
    for name in ("max_prompt_length", "max_privileged_prompt_length", "train_batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least 1.")
    compile_template(args.template, args.placement)
