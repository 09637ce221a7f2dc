"""A base model for sums: a byte-level Qwen2 of about 1 M parameters that solves short sums only.

It is trained from scratch on two kinds of chat, with the loss on the response alone:

    plain        sums of 2 and 3 numbers (``--plain-weights`` can add longer ones)
    privileged   sums of 2 to 6 numbers, the reference solution in the user turn (``PRIVILEGED_TEMPLATE``)

So it fails on nearly every plain sum of 4 to 6 numbers (cliffs), and solves them when it reads the solution:
the situation that HDPO is made for. Half of the references are random numbers in the form of a solution, so that
the model copies the reference instead of learning to add long sums from it.

    python -m examples.demo.make_sums_model --out models/sums-base
"""

import argparse
import math
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Waiting threads sleep instead of spinning: several times faster where other processes use the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from data_preprocess.sums import problem_text, solution_text
from examples.demo.model_folder import FolderError, is_made, publish
from examples.demo.sums_model import (
    FEWEST_TERMS,
    PLAIN_WEIGHTS,
    PRIVILEGED_TEMPLATE,
    PRIVILEGED_TERMS,
    chat_prompt,
    encode_batch,
    make_model,
    make_tokenizer,
    sample_chat,
    sample_terms,
)

MAX_RESPONSE = 64
THREADS = min(2, os.cpu_count() or 1)


@dataclass(frozen=True)
class Settings:
    """What decides the finished model; a model made with the same settings is not made again."""

    steps: int = 1600
    batch: int = 8
    lr: float = 3e-3
    seed: int = 0
    plain_weights: tuple[float, ...] = PLAIN_WEIGHTS

    @property
    def plain_terms(self) -> range:
        """Numbers of terms of the plain chats."""
        return range(FEWEST_TERMS, FEWEST_TERMS + len(self.plain_weights))

    def record(self) -> dict[str, Any]:
        """JSON-able, as written beside the model."""
        return asdict(self) | {"plain_weights": list(self.plain_weights)}


DEFAULT = Settings()


# Number of terms, whether privileged, how many chats, random numbers, tokenizer; gives input ids and labels.
MakeBatch = Callable[[int, bool, int, random.Random, PreTrainedTokenizerBase], tuple[torch.Tensor, torch.Tensor]]


def sums_batch(
    size: int, privileged: bool, count: int, rng: random.Random, tokenizer: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, torch.Tensor]:
    return encode_batch([sample_chat(size, privileged, rng) for _ in range(count)], tokenizer)


def train(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, make_batch: MakeBatch = sums_batch
) -> Qwen2ForCausalLM:
    """AdamW, linear warm-up, cosine decay to 0; each step takes one plain and one privileged batch."""
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    model = make_model(tokenizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = max(1, settings.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / settings.steps))),
    )
    plain_terms = settings.plain_terms
    bar = tqdm(range(settings.steps), desc="training the base model", unit="step", mininterval=1.0)
    for step in bar:
        losses = []
        for privileged in (False, True):
            size = rng.choice(PRIVILEGED_TERMS) if privileged else rng.choices(plain_terms, settings.plain_weights)[0]
            ids, labels = make_batch(size, privileged, settings.batch, rng, tokenizer)
            loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            bar.set_postfix(plain=f"{losses[0]:.3f}", privileged=f"{losses[1]:.3f}")
    return model.eval()


def accuracy(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[list[int]],
    privileged: bool,
    temperature: float,
) -> float:
    """Share of the problems whose response ends with "#### " and the sum; temperature 0 is greedy."""
    users = [problem_text(terms) for terms in problems]
    if privileged:
        users = [
            PRIVILEGED_TEMPLATE.format(problem=user, solution=solution_text(terms))
            for user, terms in zip(users, problems, strict=True)
        ]
    prompts = [chat_prompt(user, tokenizer) for user in users]
    batch = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    out = model.generate(**batch, max_new_tokens=MAX_RESPONSE, **how)
    texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    right = [text.endswith(f"#### {sum(terms)}") for text, terms in zip(texts, problems, strict=True)]
    return sum(right) / len(right)


def evaluate(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, count: int, seed: int
) -> list[dict[str, float]]:
    """Accuracy by number of terms on ``count`` problems each: plain and privileged, greedy and sampled at 1.0."""
    rng = random.Random(f"{seed}:evaluation")
    torch.manual_seed(seed)
    table = []
    for size in tqdm(PRIVILEGED_TERMS, desc="evaluating", unit="size"):
        problems = [sample_terms(size, rng) for _ in range(count)]
        row: dict[str, float] = {"terms": size}
        for privileged in (False, True):
            for temperature in (0.0, 1.0):
                name = f"{'privileged' if privileged else 'plain'}_{'sampled' if temperature else 'greedy'}"
                row[name] = accuracy(model, tokenizer, problems, privileged, temperature)
        table.append(row)
    return table


def missed_goals(table: list[dict[str, float]], settings: Settings = DEFAULT) -> list[str]:
    """What a base model needs and the evaluation does not show: the demo's solves every sum of the lengths that it was
    shown plain; with weights of one's own it may solve some of them only."""
    missed = []
    for row in table:
        size = row["terms"]
        if settings.plain_weights == PLAIN_WEIGHTS and size in settings.plain_terms and row["plain_greedy"] < 0.95:
            missed.append(f"plain sums of {size} are right in {row['plain_greedy']:.0%}, wanted 95% or more")
        if size not in settings.plain_terms and row["plain_greedy"] > 0.05:
            missed.append(f"plain sums of {size} are right in {row['plain_greedy']:.0%}, wanted 5% or less")
        if row["privileged_sampled"] < 0.9:
            missed.append(f"privileged sums of {size} are right in {row['privileged_sampled']:.0%}, wanted 90% or more")
    return missed


def print_table(table: list[dict[str, float]]) -> None:
    columns = [name for name in table[0] if name != "terms"]
    print("terms  " + "  ".join(columns))
    for row in table:
        print(f"{row['terms']:>5}  " + "  ".join(f"{row[name]:>{len(name)}.1%}" for name in columns))


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
    print_table(table)
    for line in missed_goals(table, settings):
        print(f"warning: {line}; train longer (--steps) or with another --seed")
    print(f"saved {model.num_parameters():,} parameters to {out}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make a base model for sums.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--steps", type=int, default=DEFAULT.steps, help="optimizer steps")
    parser.add_argument("--batch", type=int, default=DEFAULT.batch, help="chats of each kind per step")
    parser.add_argument("--lr", type=float, default=DEFAULT.lr, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=DEFAULT.seed, help="same seed and threads, same model")
    parser.add_argument(
        "--plain-weights",
        type=float,
        nargs="+",
        default=DEFAULT.plain_weights,
        help="shares of plain sums of 2, 3, ... numbers; how many weights there are says how long they get",
    )
    parser.add_argument("--eval-problems", type=int, default=200, help="evaluated problems per number of terms")
    args = parser.parse_args(argv)
    if min(args.steps, args.batch, args.eval_problems) < 1 or args.lr <= 0:
        parser.error("--steps, --batch and --eval-problems must be 1 or more, --lr above 0")
    weights = tuple(args.plain_weights)
    if len(weights) > len(PRIVILEGED_TERMS) or min(weights) < 0 or not 0 < sum(weights) < math.inf:
        parser.error(f"--plain-weights: at most {len(PRIVILEGED_TERMS)} weights of 0 or more, not all 0")
    try:
        make(args.out, Settings(args.steps, args.batch, args.lr, args.seed, weights), args.eval_problems)
    except FolderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("next: make the demo's problems with python data_preprocess/sums.py --out data/sums")
    return 0


if __name__ == "__main__":
    sys.exit(main())
