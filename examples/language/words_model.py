"""The chats that a base model for problems in words learns from, and the gradient of a batch of them.

    plain        the user turn is the problem; the response is its steps
    privileged   the reference, in words, follows the problem in the user turn; the response is its steps

make_words_model.py trains the model.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase

from data_preprocess.word_families import FAMILIES
from data_preprocess.word_problems import Problem, problems
from examples.demo.sums_model import PRIVILEGED_TEMPLATE, encode_batch

# Chats of like length that pass through the model together.
MICRO_BATCH = 4
# Of the generators; any serves, since the hash of a problem decides whether it is one for the base model.
CHAT_SEED = 20_000_000
# Share of the privileged chats about legs whose reference makes their numbers up, as no animal has them.
MADE_UP_LEGS, MOST_LEGS = 0.7, 14
# Shares of the plain chats: the easier ones are shown more often.
PLAIN_WEIGHTS = {
    "chain_sum_3x1": 4.0,
    "chain_sum_4x1": 2.0,
    "simple_equations_10": 3.0,
    "leg_counting_2": 6.0,
    "leg_counting_3": 4.0,
    "letter_counting_3": 2.0,
    "letter_counting_4": 1.0,
}


class ProblemSource:
    """Problems of a wanted difficulty, without end: by default those that a base model may be trained on."""

    def __init__(self, parts: Sequence[str] = ("base",), seed: int = CHAT_SEED) -> None:
        self.streams: dict[str, Iterator[Problem]] = {
            f"{family}_{size}": (p for p in problems(family, size, seed) if p.part in parts)
            for family, kind in FAMILIES.items()
            for size in kind.sizes
        }

    def take(self, difficulty: str, count: int) -> list[Problem]:
        return list(itertools.islice(self.streams[difficulty], count))


def user_turn(problem: Problem, privileged: bool) -> str:
    if not privileged:
        return problem.text
    return PRIVILEGED_TEMPLATE.format(problem=problem.text, solution=problem.reference())


def sample_chat(source: ProblemSource, privileged: bool, rng: random.Random) -> tuple[str, str]:
    """(user turn, response) of one training chat."""
    if privileged:
        difficulty = rng.choice(list(PLAIN_WEIGHTS))
    else:
        [difficulty] = rng.choices(list(PLAIN_WEIGHTS), list(PLAIN_WEIGHTS.values()))
    [problem] = source.take(difficulty, 1)
    if privileged and problem.family == "leg_counting" and rng.random() < MADE_UP_LEGS:
        problem = with_made_up_legs(problem, rng)
    return user_turn(problem, privileged), problem.solution()


def with_made_up_legs(problem: Problem, rng: random.Random) -> Problem:
    """The same herd, each animal with some number of legs: so that the number is read in the reference."""
    about = tuple((animal, count, rng.randint(0, MOST_LEGS)) for animal, count, _ in problem.about)
    return replace(problem, about=about, results=FAMILIES[problem.family].solve(about))


def backward(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, chats: list[tuple[str, str]]) -> float:
    """Gradients of the mean loss per learned token of all chats, added to the model's; returns that loss."""
    # Of like lengths together, so that little is padded.
    chats = sorted(chats, key=lambda chat: len(chat[0]) + len(chat[1]))
    batches = [encode_batch(chats[i : i + MICRO_BATCH], tokenizer) for i in range(0, len(chats), MICRO_BATCH)]
    learned = sum(int((labels[:, 1:] != -100).sum()) for _, labels in batches)
    total = 0.0
    for ids, labels in batches:
        share = int((labels[:, 1:] != -100).sum()) / learned
        loss = model(input_ids=ids, labels=labels).loss * share
        loss.backward()
        total += loss.item()
    return total
