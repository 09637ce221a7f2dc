"""The settings that follow from the figures, as overrides that a shell and Hydra read."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from recipe.hdpo.evaluation.graders import REWARD_FILE
from recipe.hdpo.preflight.rollouts import Json

# A schedule that costs a step this much more is not advised.
DEAR = 0.10
# Lengths are advised in multiples of this, in tokens.
ROUND = 64


def flags_for(args: argparse.Namespace, numbers: Json, source: str) -> Iterator[tuple[str, str]]:
    """(override, why) of every setting.

    Args:
        args: of the command line.
        numbers: of :func:`~recipe.hdpo.preflight.numbers.compute`.
        source: the advised one.
    """
    entry = numbers["sources"][source]
    prompt, shown = _prompt_lengths(numbers, entry)
    yield "+use=hdpo", "switches HDPO on in any verl command"
    yield f"hdpo.privileged.source={source}", "the largest share of right rollouts of cliffs, less what is copied"
    schedule, why = _schedule(entry["cost"])
    fewer = entry["n"] < numbers["J"]
    why_n = f"solves nearly as many cliffs as {numbers['J']} would" if fewer else "as many as were tried here"
    yield f"hdpo.privileged.n={entry['n']}", why_n
    yield f"hdpo.privileged.schedule={schedule}", why
    yield f"actor_rollout_ref.rollout.n={args.n}", "K, as measured here"
    yield f"data.max_prompt_length={prompt}", "the longest plain prompt of this sample, rounded up"
    yield f"data.max_response_length={args.max_tokens}", "as sampled here"
    yield f"hdpo.privileged.max_prompt_length={shown}", "the longest privileged prompt of this sample, rounded up"
    yield f"actor_rollout_ref.rollout.max_model_len={shown + args.max_tokens}", "holds it with a full response"
    for flag in (*_graded(args), *_given(args)):
        yield flag, "as given here"


def _graded(args: argparse.Namespace) -> Iterator[str]:
    """What decides whether a rollout is right: by another reward other prompts are cliffs."""
    path, _, name = args.reward.partition(":")
    place = "pkg://recipe.hdpo.reward" if Path(path) == REWARD_FILE else str(Path(path).resolve())
    yield f"reward.custom_reward_function.path={_hydra(place)}"
    yield f"reward.custom_reward_function.name={name or 'compute_score'}"
    yield from _added("reward.custom_reward_function.reward_kwargs", args.reward_kwargs)
    if args.success_reward != 1.0:
        yield f"hdpo.success_reward={args.success_reward}"


def _given(args: argparse.Namespace) -> Iterator[str]:
    """Sampling, places of the texts, and options of templates, where they are not the defaults."""
    for name, everything in (("temperature", 1.0), ("top_p", 1.0), ("top_k", 0)):
        if (value := getattr(args, name)) != everything:
            yield f"actor_rollout_ref.rollout.{name}={value}"
    for name, default in (
        ("solution_key", "extra_info.solution"),
        ("answer_key", "reward_model.ground_truth"),
        ("placement", "user"),
        ("template", None),
    ):
        if (text := getattr(args, name)) != default:
            yield f"hdpo.privileged.{name}={_hydra(text)}"
    if args.join_texts:
        yield "hdpo.privileged.join_texts=true"
    yield from _added("data.apply_chat_template_kwargs", args.chat_template_kwargs)
    yield from _added("hdpo.privileged.chat_template_kwargs", args.privileged_chat_template_kwargs)


def _added(key: str, value: Any) -> Iterator[str]:
    """Overrides that add a JSON value at a key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _added(f"{key}.{name}", inner)
    else:
        yield f"+{key}={_hydra(value) if isinstance(value, str) else json.dumps(value)}"


def command(flags: list[tuple[str, str]]) -> str:
    """The flags as a shell reads them, one a line."""
    return " \\\n".join(_quoted(flag) for flag, _ in flags)


def _schedule(cost: Json) -> tuple[str, str]:
    costs = cost["half_the_step"]
    if costs is None:
        return "same_step", "the default"
    same, following = (f"{100 * (costs[name] - 1):.0f} %" for name in ("same_step", "next_step"))
    said = f"same_step adds {same} to a step of which rollouts are half, next_step {following}"
    return ("next_step" if costs["same_step"] - costs["next_step"] > DEAR else "same_step"), said


def _prompt_lengths(numbers: Json, entry: Json) -> tuple[int, int]:
    """Of plain and of privileged prompts: rounded up as far as the model's positions allow, the second above the first,
    as the recipe wants it."""
    plain, shown = _rounded(numbers["plain"]["longest_prompt"]), _rounded(entry["longest_prompt"])
    shown = max(shown, plain + ROUND)
    if numbers["room"] is not None:
        shown = min(shown, numbers["room"])
        plain = min(plain, max(numbers["plain"]["longest_prompt"], shown - 1))
    return plain, shown


def _hydra(value: str) -> str:
    """A value as Hydra's grammar reads it, as a shell hands it over: in double quotes within."""
    plain = value.replace(".", "").replace("_", "").isalnum()
    return value if plain else QuotedString(value, Quote.double).with_quotes()


def _quoted(flag: str) -> str:
    if "\n" not in flag:
        return shlex.quote(flag)
    # $'...', in which a line break stays one for Hydra.
    return "$'" + flag.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _rounded(tokens: int) -> int:
    return -(-tokens // ROUND) * ROUND
