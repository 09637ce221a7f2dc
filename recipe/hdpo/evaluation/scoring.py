"""The reward function of an evaluation: loaded from a file, called once for every sample."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import math
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from recipe.hdpo.algorithm.cliff import UNSCORED
from recipe.hdpo.answers.text import normalise
from recipe.hdpo.evaluation.graders import REWARD_FILE
from recipe.hdpo.evaluation.problems import Problem
from recipe.hdpo.math_answer import final_answer

DEFAULT_REWARD = f"{REWARD_FILE}:compute_score"
ANSWER_KEYS = (
    "pred",
    "answer",
)  # under which a reward function returns the answer it extracted; "pred" is verl's
# What verl's math_dapo returns there for a response without an answer.
NO_ANSWER = "[INVALID]"


class Grade(NamedTuple):
    """What a reward function says of one response.

    Attributes:
        score: 0.0 of one that could not be graded.
        answer: what the reward function says it extracted (``pred`` or ``answer`` of its dict), else the text after the
            last "####" or in the last ``\\boxed{}``, normalised. None without one, also where the reward function
            says so (by a blank text, or verl's ``[INVALID]``).
        unscored: why it could not be graded (``hdpo_unscored`` of the dict); empty where it was.
    """

    score: float
    answer: str | None
    unscored: str


def load_reward(spec: str) -> tuple[Callable[..., Any], Path]:
    """Load ``FILE.py:FUNCTION`` (the function's name defaults to ``compute_score``). The file's code is run.

    Returns:
        The function and the file's path.

    Raises:
        ValueError: no such file, or no such function in it.
    """
    path_text, _, name = spec.partition(":")
    path, name = Path(path_text), name or "compute_score"
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"--reward {spec}: {path} is not a Python file. Pass FILE.py:FUNCTION.")
    module_spec = importlib.util.spec_from_file_location(f"_evaluation_reward_{path.stem}", path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    # Where dataclasses, among others, look a class's module up.
    sys.modules[module_spec.name] = module
    module_spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"--reward {spec}: {path} has no function {name}. Pass FILE.py:FUNCTION.")
    return function, path


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def score_response(reward: Callable[..., Any], problem: Problem, response: str) -> Grade:
    """Score one response as verl's reward manager does, which waits for a function that is ``async``.

    Raises:
        ValueError: the reward function failed, or returned no finite number; names the problem.
    """
    try:
        result = reward(
            data_source=problem.data_source,
            solution_str=response,
            ground_truth=problem.ground_truth,
            extra_info=problem.extra_info,
        )
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        score = float(result["score"] if isinstance(result, dict) else result)
    except Exception as error:
        raise ValueError(
            f"The reward function failed on problem {problem.id} of {problem.data_source} "
            f"({type(error).__name__}: {error}); response: {response[:200]!r}. Mend the function and run "
            "again: "
            "samples that are already scored are kept."
        ) from error
    if not math.isfinite(score):
        raise ValueError(f"The reward function returned {score} for problem {problem.id}; it must be a finite number.")
    said = [result[key] for key in ANSWER_KEYS if result.get(key) is not None] if isinstance(result, dict) else []
    answer = str(said[0]).strip() if said else normalise(final_answer(response) or "")
    unscored = str(result.get(UNSCORED) or "") if isinstance(result, dict) else ""
    return Grade(score, None if answer in ("", NO_ANSWER) else answer, unscored)
