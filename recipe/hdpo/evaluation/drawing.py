"""Draws what a result folder lacks, for every command that samples a model: evaluate and preflight."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recipe.hdpo.evaluation.generate import Engine, Response, Sampling
from recipe.hdpo.evaluation.graders import grader_name
from recipe.hdpo.evaluation.problems import Problem, file_sha256
from recipe.hdpo.evaluation.records import GREEDY, Sample
from recipe.hdpo.evaluation.scoring import Grade
from recipe.hdpo.evaluation.wording import counted
from recipe.hdpo.evaluation.writer import ResultWriter
from recipe.hdpo.math_answer import THOUGHTS_ARE_GRADED, opens_thinking, reads_answers


def draw_missing(
    engine: Engine,
    prompt_ids: dict[str, list[int]],
    problems: Sequence[Problem],
    sampling: Sampling,
    score_of: Callable[[Problem, str], Grade],
    writer: ResultWriter,
    batch_size: int,
) -> None:
    """Draw, score and write every sample of the problems that a result folder has not.

    Args:
        engine: loaded here, where something is missing.
        prompt_ids: token ids by problem id, of all problems.
        score_of: see :func:`~recipe.hdpo.evaluation.scoring.score_response`.
        batch_size: samples between two writes.

    Raises:
        ValueError: the folder holds samples of other problems, or the reward function failed; what was scored before
            is written.
    """
    from tqdm import tqdm

    by_id = {problem.id: problem for problem in problems}
    wanted = [(problem.id, i) for problem in problems for i in range(GREEDY, sampling.n)]
    strangers = writer.done - set(wanted)
    if strangers:
        raise ValueError(
            f"{writer.folder}: samples.jsonl holds {len(strangers)} sample(s) that are none of these problems' "
            f"({min(strangers)[0]}, ...). Nothing was drawn. Put the folder's own file back, or pass another --out."
        )
    missing = [key for key in wanted if key not in writer.done]
    if not missing:
        print(f"All {len(wanted)} samples are already in {writer.folder}.")
        return
    print(f"Drawing {len(missing)} of {counted(len(wanted), 'sample')} into {writer.folder}", flush=True)
    engine.load()
    with tqdm(total=len(wanted), initial=len(wanted) - len(missing), unit="sample") as progress:
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            responses = engine.respond(batch, prompt_ids, sampling)
            samples: list[Sample] = []
            try:
                for (id_, i), response in zip(batch, responses, strict=True):
                    samples.append(_scored(by_id[id_], i, response, score_of))
            finally:
                # Those before one that cannot be scored, too.
                writer.write(samples)
            progress.update(len(batch))


def warn_of_open_thoughts(
    args: argparse.Namespace, engine: Engine, prompt_ids: dict[str, list[int]], reward_file: Path
) -> None:
    """Say so where the chat template opens a thought that the recipe's reward does not know of."""
    first = next(iter(prompt_ids.values()), [])
    told = "thinking_opened" in args.reward_kwargs or not reads_answers(reward_file)
    if not told and opens_thinking(engine.tokenizer.decode(first, skip_special_tokens=False)):
        option = """--reward-kwargs '{"thinking_opened": true}'"""
        print(f"warning: {THOUGHTS_ARE_GRADED}. Pass {option}, or false to leave it so.")


def _scored(problem: Problem, number: int, response: Response, score_of: Callable[[Problem, str], Grade]) -> Sample:
    grade = score_of(problem, response.text)
    return Sample(
        problem_id=problem.id,
        data_source=problem.data_source,
        difficulty=problem.difficulty,
        sample=number,
        prompt=problem.prompt,
        response=response.text,
        answer=grade.answer,
        score=grade.score,
        tokens=response.tokens,
        truncated=response.truncated,
        unscored=grade.unscored,
    )


def settings_of(
    args: argparse.Namespace, sampling: Sampling, engine: Engine, reward_file: Path, function: str
) -> dict[str, Any]:
    """What decides the samples and their scores, but for the problems and the model.

    Args:
        args: of the command line (:mod:`~recipe.hdpo.evaluation.arguments`).
        function: name of the reward function in ``reward_file``.
    """
    # Named only where given, so that a folder made without them can be gone on with.
    options = {name: value for name in ("chat_template_kwargs", "reward_kwargs") if (value := getattr(args, name))}
    return {
        **asdict(sampling),
        "limit": args.limit,
        "success_reward": args.success_reward,
        **options,
        "data_sha256": [file_sha256(file) for file in args.data],
        "dtype": engine.dtype,
        "device": engine.device,
        "grader": grader_name(reward_file),
        "reward_function": function,
        **engine.versions,
    }
