"""What the adapter of the words model is added to: the whole of SmolLM2, or a part of it."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from examples.demo.sums_model import CHATML, END, PAD, START
from examples.language.cut_model import cut_embeddings, cut_layers, cut_vocabulary
from examples.language.words_model import ProblemSource, user_turn

# A smaller vocabulary holds the tokens of this many chats, of a generator's seed of their own.
VOCABULARY_CHATS, VOCABULARY_SEED = 6_000, 25_000_000


def load(base: Path, layers: Sequence[int], dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """What the adapter is added to, and its tokenizer: the base, or these layers of it with a smaller vocabulary."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    if layers:
        tokenizer, ids = cut_vocabulary(tokenizer, vocabulary_texts(), [PAD, START, END])
        tokenizer.eos_token, tokenizer.pad_token = END, PAD
        cut_layers(model, layers)
        cut_embeddings(model, ids)
        for config in (model.config, model.generation_config):
            config.bos_token_id, config.eos_token_id = None, tokenizer.eos_token_id
            config.pad_token_id = tokenizer.pad_token_id
    # Without the system message of the base's own template.
    tokenizer.chat_template = CHATML
    return model, tokenizer


def vocabulary_texts() -> Iterator[str]:
    """User turns and responses of all families and difficulties, also of those that no base model is trained on."""
    source = ProblemSource(seed=VOCABULARY_SEED)
    difficulties = itertools.cycle(source.streams)
    for _ in range(VOCABULARY_CHATS):
        [problem] = source.take(next(difficulties), 1)
        yield from (f"user\n{user_turn(problem, privileged)}" for privileged in (False, True))
        yield f"assistant\n{problem.solution()}"
