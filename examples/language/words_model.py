"""The parts of the base model for problems in words: tokenizer, untrained Qwen2, and the chats that it learns from.

    plain        the user turn is the problem; the response is its steps
    privileged   the reference, in words, follows the problem in the user turn; the response is its steps

make_words_model.py trains the model.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from data_preprocess.word_families import FAMILIES
from data_preprocess.word_problems import Problem, problems
from examples.demo.sums_model import CHATML, PRIVILEGED_TEMPLATE
from examples.demo.sums_model import make_tokenizer as make_byte_tokenizer

VOCABULARY = 768
MAX_POSITIONS = 512
# Of the generators; any serves, since the hash of a problem decides whether it is one for the base model.
CHAT_SEED = 20_000_000
# Problems of each difficulty that the tokenizer learns its words from.
TOKENIZER_PROBLEMS = 300
# Shares of the plain chats: the easier ones are shown more often.
PLAIN_WEIGHTS = {
    "chain_sum_3x1": 3.0,
    "chain_sum_4x1": 2.0,
    "chain_sum_5x1": 1.0,
    "chain_sum_3x2": 4.0,
    "chain_sum_4x2": 1.0,
    "chain_sum_5x2": 0.5,
    "leg_counting_2": 5.0,
    "leg_counting_3": 2.0,
    "leg_counting_4": 1.0,
    "simple_equations_10": 5.0,
    "simple_equations_20": 3.0,
    "letter_counting_3": 3.0,
    "letter_counting_4": 2.0,
    "letter_counting_5": 1.0,
    "letter_counting_6": 0.5,
}
# Share of the privileged chats whose worked-out numbers are random: the model must read them.
RANDOM_REFERENCES = 0.5


@dataclass(frozen=True)
class Shape:
    """Sizes of the Qwen2: the default has 2.1 M weights."""

    hidden: int = 192
    layers: int = 4
    heads: int = 6


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


def make_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level BPE learnt from the chats' own texts, with the demo's chat template; every digit is a token."""
    source = ProblemSource()
    texts = [
        # Chat template and special tokens apart, whose brackets are no words.
        f"user\n{user_turn(problem, True)}\nassistant\n{problem.solution()}"
        for difficulty in source.streams
        for problem in source.take(difficulty, TOKENIZER_PROBLEMS)
    ]
    tokenizer = make_byte_tokenizer().train_new_from_iterator(texts, VOCABULARY, show_progress=False)
    tokenizer.chat_template = CHATML
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerBase, shape: Shape) -> Qwen2ForCausalLM:
    """A Qwen2 with random weights whose vocabulary is exactly the tokenizer's."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        # About 1/sqrt(hidden): with the usual 0.02 a model this narrow is much slower to learn copying.
        initializer_range=shape.hidden**-0.5,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def random_results(problem: Problem, rng: random.Random) -> tuple[int, ...]:
    """Numbers that mean nothing in the place of the worked-out ones, about as large: they can only be read."""
    low, high = min(0, *problem.results), max(5, *problem.results)
    return tuple(rng.randint(low, high + high // 4) for _ in problem.results)


def user_turn(problem: Problem, privileged: bool) -> str:
    if not privileged:
        return problem.text
    return PRIVILEGED_TEMPLATE.format(problem=problem.text, solution=problem.reference())


def copy_chat(rng: random.Random) -> tuple[str, str]:
    """(user turn, response) of a chat whose response repeats the user turn: lines of steps in random numbers."""
    number = lambda: rng.randint(0, 10 ** rng.randint(1, 3) - 1)  # noqa: E731
    lines = [f"{number()}{rng.choice('+-*/')}{number()}={number()}" for _ in range(rng.randint(1, 2))]
    return "\n".join(lines), "\n".join(lines)


def sample_chat(source: ProblemSource, privileged: bool, rng: random.Random) -> tuple[str, str]:
    """(user turn, response) of one training chat."""
    if not privileged:
        problem = source.take(rng.choices(list(PLAIN_WEIGHTS), list(PLAIN_WEIGHTS.values()))[0], 1)[0]
        return problem.text, problem.solution()
    family = rng.choice(list(FAMILIES))
    problem = source.take(f"{family}_{rng.choice(list(FAMILIES[family].sizes))}", 1)[0]
    results = random_results(problem, rng) if rng.random() < RANDOM_REFERENCES else problem.results
    reference = problem.reference(results)
    return PRIVILEGED_TEMPLATE.format(problem=problem.text, solution=reference), problem.solution(results)
