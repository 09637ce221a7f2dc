"""Every folder of rollouts, drawn with one engine: what is there already is not drawn again."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from recipe.hdpo.algorithm.seeds import derived_seed
from recipe.hdpo.evaluation.checkpoint import model_sha256, resolve_model, weights_dtype
from recipe.hdpo.evaluation.drawing import draw_missing, settings_of, warn_of_open_thoughts
from recipe.hdpo.evaluation.generate import Engine, Sampling
from recipe.hdpo.evaluation.problems import ProblemSet, ids_sha256
from recipe.hdpo.evaluation.records import Meta, Results, read_results
from recipe.hdpo.evaluation.scoring import load_reward, score_response
from recipe.hdpo.evaluation.writer import ResultWriter
from recipe.hdpo.preflight.sources import PLAIN, PromptSet, make_builder, privileged


@dataclass
class Drawn:
    """All rollouts, and the prompts that they answer.

    Attributes:
        plain: the plain prompts.
        sources: the privileged ones, in the order asked for.
        results: by source, ``plain`` among them; a source without any problem has none.
        model, reward_file: that sampled and graded.
        room: tokens of the longest prompt that the model has positions for beside a response; None: no limit is known.
        tokens: token ids of a text, without special ones.
        rendered: a prompt as the model reads it, by its token ids.
    """

    plain: PromptSet
    sources: list[PromptSet]
    results: dict[str, Results]
    model: Path
    reward_file: Path
    room: int | None
    tokens: Callable[[str], list[int]]
    rendered: Callable[[list[int]], str]


def draw(args: argparse.Namespace, problems: ProblemSet, command: str) -> Drawn:
    """Sample what is missing of every kind of rollouts.

    Raises:
        ValueError: as evaluate's; or no prompt fits.
    """
    reward, reward_file = load_reward(args.reward)
    sources = [privileged(source, problems.problems, make_builder(args, source)) for source in args.sources]
    model = resolve_model(args.model, args.out)
    engine = Engine(model, args.dtype, args.gpu_memory_utilization, args.tensor_parallel_size)
    _check_ends(engine, args)
    plain = PromptSet(PLAIN, list(problems.problems))
    _fit(engine, args, plain, sources)
    warn_of_open_thoughts(args, engine, plain.prompt_ids, reward_file)
    common = settings_of(args, _sampling(args, PLAIN), engine, reward_file, reward.__name__)
    common |= {"model_sha256": model_sha256(model), "weights_dtype": weights_dtype(model)}
    about = {
        "model": str(model.resolve()),
        "data": [str(file.resolve()) for file in args.data],
        "duplicates": problems.duplicates,
        "command": command,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    score = partial(score_response, partial(reward, **args.reward_kwargs))
    kinds = [kind for kind in (plain, *sources) if kind.problems]
    try:
        for kind in kinds:
            _draw_kind(engine, args, kind, common, about, score)
    finally:
        engine.close()
    return Drawn(
        plain=plain,
        sources=sources,
        results={kind.source: read_results(args.out / kind.folder) for kind in kinds},
        model=model,
        reward_file=reward_file,
        room=engine.room(args.max_tokens),
        tokens=partial(_token_ids, engine.tokenizer),
        rendered=partial(engine.tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False),
    )


def _fit(engine: Engine, args: argparse.Namespace, plain: PromptSet, sources: Sequence[PromptSet]) -> None:
    """Token ids of every prompt, and a context for the longest of all that fit."""
    room = engine.room(args.max_tokens)
    for kind in (plain, *sources):
        asked = args.max_prompt_length if kind is plain else args.max_privileged_prompt_length
        limit = min((limit for limit in (room, asked) if limit is not None), default=None)
        kind.problems = [problem for problem in kind.problems if problem.id not in plain.too_long]
        try:
            prompt_ids = engine.token_ids(kind.problems, _template_options(args, kind.source))
        except jinja2.TemplateError as error:
            raise ValueError(f"the model's chat template makes no {kind.source} prompt: {error}") from error
        kind.fit(prompt_ids, limit)
        if kind.problems:
            engine.make_room(kind.prompt_ids, args.max_tokens)
        elif kind is plain:
            shortest = min(plain.too_long.values())
            raise ValueError(
                f"no prompt fits: the shortest has {shortest} tokens, and there is room for {limit}. Raise "
                f"--max-prompt-length, or lower --max-tokens {args.max_tokens}."
            )


def _template_options(args: argparse.Namespace, source: str) -> dict[str, Any]:
    return args.chat_template_kwargs | ({} if source == PLAIN else args.privileged_chat_template_kwargs)


def _check_ends(engine: Engine, args: argparse.Namespace) -> None:
    """Refuse options by which a privileged prompt ends in other tokens than the plain one, as training does."""
    if not args.privileged_chat_template_kwargs:
        return
    plain, shown = (engine.prompt_end(_template_options(args, source)) for source in (PLAIN, ""))
    if plain != shown:
        raise ValueError(
            f"with --privileged-chat-template-kwargs {args.privileged_chat_template_kwargs} a privileged prompt ends "
            f"in {shown!r}, and the plain prompt in {plain!r}: teacher and student read a response behind the same "
            "last tokens. Pass the option that changes them as --chat-template-kwargs too, or leave it out."
        )


def _draw_kind(
    engine: Engine,
    args: argparse.Namespace,
    kind: PromptSet,
    common: dict[str, Any],
    about: dict[str, Any],
    score: Callable[..., Any],
) -> None:
    sampling = _sampling(args, kind.source)
    settings = {**common, "n": sampling.n, "seed": sampling.seed, "problems_sha256": ids_sha256(kind.prompt_ids)}
    if kind.source != PLAIN:
        settings |= {"source": kind.source, "prompts_sha256": kind.prompts_sha256()}
        if args.privileged_chat_template_kwargs:
            settings["privileged_chat_template_kwargs"] = args.privileged_chat_template_kwargs
    with ResultWriter(args.out / kind.folder, Meta(settings, len(kind.problems), about)) as writer:
        if writer.cut_file:
            print(f"The last line was cut off: it is now in {writer.cut_file}, and its sample is drawn again.")
        draw_missing(engine, kind.prompt_ids, kind.problems, sampling, score, writer, args.batch_size)


def _sampling(args: argparse.Namespace, source: str) -> Sampling:
    """Cliffs are chosen by plain rollouts, so privileged ones have seeds that have nothing to do with theirs."""
    is_plain = source == PLAIN
    return Sampling(
        n=args.n if is_plain else args.privileged_n,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        max_tokens=args.max_tokens,
        seed=args.seed if is_plain else derived_seed(args.seed, source),
    )


def _token_ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids
