"""A base model for problems in words: a Qwen2 of 2.1 M parameters with a vocabulary of its own, trained from scratch.

It learns from two kinds of chat, with the loss on the response alone:

    plain        problems of four families, the easier ones more often (``PLAIN_WEIGHTS``)
    privileged   problems of every difficulty, with the reference in words in the user turn

It is to fail on many of the harder plain problems, and to solve them when it reads the reference, which it must
translate into its own form. As it stands it is no base for a study: it takes over most of what the reference says, and
calculates next to nothing by itself. Half of the references hold random numbers, so that the model reads them instead
of learning the hard problems from them. No problem of the data set is trained on (``PARTS`` in
data_preprocess/word_problems.py).

    python -m examples.language.make_words_model --out models/words-base
"""

import argparse
import math
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Waiting threads sleep instead of spinning: several times faster where other processes use the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from data_preprocess.word_problems import HELDOUT
from examples.demo.model_folder import FolderError, is_made, publish
from examples.demo.sums_model import encode_batch
from examples.language.words_model import (
    PLAIN_WEIGHTS,
    RANDOM_REFERENCES,
    ProblemSource,
    Shape,
    copy_chat,
    make_model,
    make_tokenizer,
    sample_chat,
)
from examples.language.words_rates import by_difficulty, print_rates, sample

THREADS = min(2, os.cpu_count() or 1)
# Of the generator, for the problems of the evaluation.
EVAL_SEED = 30_000_000
EVAL_SAMPLES = 4
# Share of the steps, the first ones, in which the chats are short texts to repeat, and how many of these. A model that
# has learnt to copy learns to translate; from problems alone it had not begun to after 400 steps.
COPY_SHARE, COPY_CHATS = 0.075, 48
# Chats of like length that pass through the model together.
MICRO_BATCH = 16


@dataclass(frozen=True)
class Settings:
    """What decides the finished model; a model made with the same settings is not made again."""

    steps: int = 1600
    batch: int = 8
    lr: float = 3e-3
    seed: int = 0
    shape: Shape = field(default_factory=Shape)

    def record(self) -> dict[str, Any]:
        """JSON-able, as written beside the model."""
        return asdict(self) | {
            "plain_weights": PLAIN_WEIGHTS,
            "random_references": RANDOM_REFERENCES,
            "copy": [COPY_SHARE, COPY_CHATS],
        }


DEFAULT = Settings()


def backward(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, chats: list[tuple[str, str]]) -> float:
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


def train(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
    """AdamW, linear warm-up, cosine decay to 0. After the first steps, of texts to repeat, each step takes as many
    plain chats as privileged ones."""
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    source = ProblemSource()
    model = make_model(tokenizer, settings.shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = max(1, settings.steps // 30)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / settings.steps))),
    )
    copy_steps = int(COPY_SHARE * settings.steps)
    bar = tqdm(range(settings.steps), desc="training the base model", unit="step", mininterval=1.0)
    for step in bar:
        losses = []
        if step < copy_steps:
            losses = 2 * [backward(model, tokenizer, [copy_chat(rng) for _ in range(COPY_CHATS)])]
        for privileged in (False, True) if step >= copy_steps else ():
            chats = [sample_chat(source, privileged, rng) for _ in range(settings.batch)]
            losses.append(backward(model, tokenizer, chats))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            bar.set_postfix(plain=f"{losses[0]:.3f}", privileged=f"{losses[1]:.3f}")
    return model.eval()


def evaluate(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, count: int, seed: int
) -> dict[str, dict[str, float]]:
    """Rates by difficulty on ``count`` problems each that the model was not trained on, sampled at temperature 1."""
    torch.manual_seed(seed)
    # Tuning problems, so that what is reported stays unseen.
    source = ProblemSource(("tune", HELDOUT), EVAL_SEED)
    problems = [problem for difficulty in source.streams for problem in source.take(difficulty, count)]
    plain, privileged = (sample(model, tokenizer, problems, shown, EVAL_SAMPLES) for shown in (False, True))
    return by_difficulty(plain, privileged)


def make(out: Path, settings: Settings, eval_problems: int) -> None:
    """Train, evaluate and save; nothing to do where ``out`` holds the model of these settings already."""
    if is_made(out, settings.record()):
        print(f"{out} already holds the model of these settings; nothing to do")
        return
    torch.set_num_threads(THREADS)
    tokenizer = make_tokenizer()
    model = train(settings, tokenizer)
    table = evaluate(model, tokenizer, eval_problems, settings.seed)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    publish(out, settings.record(), table, save)
    print_rates(table)
    print(f"saved {model.num_parameters():,} parameters to {out}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make a base model for problems in words.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--steps", type=int, default=DEFAULT.steps, help="optimizer steps")
    parser.add_argument("--batch", type=int, default=DEFAULT.batch, help="chats of each kind per step")
    parser.add_argument("--lr", type=float, default=DEFAULT.lr, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=DEFAULT.seed, help="same seed and threads, same model")
    parser.add_argument("--hidden", type=int, default=DEFAULT.shape.hidden, help="width, in heads of 32")
    parser.add_argument("--layers", type=int, default=DEFAULT.shape.layers, help="blocks of the Qwen2")
    parser.add_argument("--eval-problems", type=int, default=20, help="evaluated problems per difficulty")
    args = parser.parse_args(argv)
    if min(args.steps, args.batch, args.eval_problems) < 1 or args.lr <= 0:
        parser.error("--steps, --batch and --eval-problems must be 1 or more, --lr above 0")
    if args.hidden < 32 or args.hidden % 32 or args.layers < 1:
        parser.error("--hidden must be a multiple of 32, --layers 1 or more")
    shape = Shape(args.hidden, args.layers, args.hidden // 32)
    try:
        make(args.out, Settings(args.steps, args.batch, args.lr, args.seed, shape), args.eval_problems)
    except FolderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("next: python data_preprocess/words.py --out data/words")
    return 0


if __name__ == "__main__":
    sys.exit(main())
