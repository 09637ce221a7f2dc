"""Which layers a words model needs least: they are taken out one after the other, each time the one that costs least.

    python -m examples.language.layer_order --model models/words-base

It prints what is left and the loss after every removal. ``--layers`` of make_words_model.py takes such a list.
"""

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from examples.demo.sums_model import encode_batch
from examples.language.words_model import MICRO_BATCH, ProblemSource, sample_chat

# Of the generator: chats of their own.
ORDER_SEED = 26_000_000


def removals(layers: int, loss: Callable[[Sequence[int]], float], tried: int) -> Iterator[tuple[float, list[int]]]:
    """(loss, layers that are left) after each removal, until two are left.

    Args:
        layers: how many there are at first.
        loss: of the model that these layers are left of.
        tried: before each removal but the first so many layers are tried, those that cost least when last tried.
    """
    left = list(range(layers))
    without = lambda layer: [other for other in left if other != layer]  # noqa: E731
    cost = {layer: loss(without(layer)) for layer in left}
    while len(left) > 2:
        candidates = sorted(left, key=cost.__getitem__)[:tried]
        cost |= {layer: loss(without(layer)) for layer in candidates if len(left) < layers}
        least = min(candidates, key=cost.__getitem__)
        left = without(least)
        yield cost[least], left


def loss_of_layers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chats: Sequence[tuple[str, str]]
) -> Callable[[Sequence[int]], float]:
    """The mean loss per learned token of the chats, of the model that some layers are left of."""
    ordered, layers = sorted(chats, key=lambda chat: len(chat[0]) + len(chat[1])), list(model.model.layers)
    batches = [encode_batch(ordered[i : i + MICRO_BATCH], tokenizer) for i in range(0, len(ordered), MICRO_BATCH)]

    @torch.no_grad()
    def loss(left: Sequence[int]) -> float:
        model.model.layers = torch.nn.ModuleList(layers[i] for i in left)
        counts = [int((labels[:, 1:] != -100).sum()) for _, labels in batches]
        losses = [model(input_ids=ids, labels=labels, use_cache=False).loss.item() for ids, labels in batches]
        return sum(value * count for value, count in zip(losses, counts, strict=True)) / sum(counts)

    return loss


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Take layers out of a words model, the least needed first.")
    parser.add_argument("--model", type=Path, required=True, help="folder of the words model")
    parser.add_argument("--chats", type=int, default=16, help="half of them with the reference")
    parser.add_argument("--tried", type=int, default=6, help="layers that are tried before each removal")
    args = parser.parse_args(argv)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    source, rng = ProblemSource(seed=ORDER_SEED), random.Random(ORDER_SEED)
    chats = [sample_chat(source, number % 2 == 1, rng) for number in range(args.chats)]
    loss, count = loss_of_layers(model, tokenizer, chats), len(model.model.layers)
    print(f"{count} layers: loss {loss(range(count)):.3f}")
    for value, left in removals(count, loss, args.tried):
        print(f"{len(left)} layers: loss {value:.3f}:", *left, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
