"""verl's FSDP2 actor on one device without Ray, as the tests have it, and batches for it."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.hdpo.training.fsdp_ranks import Job, Row

# Qwen2.5-Math-1.5B.
QWEN_1_5B = dict(
    vocab_size=151_936,
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    tie_word_embeddings=True,
)
# The same kind of model for a CPU, and where only the calls count.
TINY = QWEN_1_5B | dict(
    vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2
)


@contextmanager
def model_folder(shape: dict[str, Any], device: str) -> Iterator[str]:
    """A folder with a Qwen2 of random bf16 weights, removed afterwards."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        with torch.device(device):
            model = Qwen2ForCausalLM(Qwen2Config(**shape)).to(torch.bfloat16)
        model.save_pretrained(folder)
        del model
        if device == "cuda":
            torch.cuda.empty_cache()
        yield folder


def become_the_only_rank(device: str) -> None:
    """What Ray would set for a group of one; a CPU has to be named before verl is imported."""
    folder = tempfile.mkdtemp()
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    os.environ["DIST_INIT_METHOD"] = f"file://{folder}/store"
    if device == "cpu":
        os.environ["VERL_PLATFORM"] = "cpu"
        torch.set_num_threads(1)  # a tiny model's threads would only wait for each other


def make_rows(rng: random.Random, count: int, scale: float, vocabulary: int, teacher_prompt: bool = False) -> list[Row]:
    """Sequences of about 700 tokens at scale 1: 100 to 300 of the prompt, 300 to 700 of the response.

    A privileged prompt has 300 tokens more than a plain one.
    """

    def tokens(low: float, high: float) -> list[int]:
        return [rng.randrange(1, vocabulary) for _ in range(rng.randint(max(2, int(low)), max(3, int(high))))]

    def row() -> Row:
        prompt = tokens(100 * scale, 300 * scale)
        shown = prompt + tokens(300 * scale, 300 * scale) if teacher_prompt else None
        advantage = 0.0 if teacher_prompt else rng.uniform(-2, 2)
        return Row(prompt, tokens(300 * scale, 700 * scale), advantage=advantage, teacher_prompt=shown)

    return [row() for _ in range(count)]


def make_job(folder: str | Path, rollouts: list[Row], device: str, **options: Any) -> Job:
    """One rank's job: packed rows, dynamic micro-batches, bf16 on a card; a learning rate of 0 keeps the weights."""
    on_card = device == "cuda"
    return Job(
        rollouts=[rollouts],
        kept=[],
        model_dir=str(folder),
        max_tokens=8192 if on_card else 256,
        dtype="bf16" if on_card else "fp32",
        lr=0.0,
        **options,
    )
