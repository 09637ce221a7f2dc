"""A base model for sums that calls a calculator: a byte-level Qwen2 of about 1 M parameters, trained from scratch.

What it learns, and the habit that makes its cliffs: examples/agent/agent_model.py.

    python -m examples.agent.make_agent_model --out models/agent-base
"""

import argparse
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

# Waiting threads sleep instead of spinning: several times faster where other processes use the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from examples.agent.agent_model import (
    HABIT,
    call_text,
    encode_conversations,
    make_agent_tokenizer,
    prompt_text,
    tool_turn,
)
from examples.demo.make_sums_model import THREADS, Settings, print_table, train
from examples.demo.model_folder import FolderError, is_made, publish
from examples.demo.sums_model import PRIVILEGED_TERMS, sample_terms

MAX_CALL = 96
DEFAULT = Settings(steps=600, plain_weights=(1.0,) * len(PRIVILEGED_TERMS))


def written(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[str], temperature: float
) -> list[str]:
    """The next turn after each prompt, without its end; temperature 0 is greedy."""
    batch = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    out = model.generate(**batch, max_new_tokens=MAX_CALL, **how)
    return tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def evaluate(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, count: int, seed: int
) -> list[dict[str, float]]:
    """By number of terms: how often the call asks for the whole sum, plain and privileged, greedy and sampled at 1.0;
    and how often the last line is the tool's answer."""
    rng = random.Random(f"{seed}:evaluation")
    torch.manual_seed(seed)
    table = []
    for size in tqdm(PRIVILEGED_TERMS, desc="evaluating", unit="size"):
        problems = [sample_terms(size, rng) for _ in range(count)]
        row: dict[str, float] = {"terms": size}
        for privileged in (False, True):
            prompts = [prompt_text(terms, privileged, tokenizer) for terms in problems]
            for temperature in (0.0, 1.0):
                name = f"{'privileged' if privileged else 'plain'}_{'sampled' if temperature else 'greedy'}"
                calls = written(model, tokenizer, prompts, temperature)
                row[name] = sum(call == call_text(t) for call, t in zip(calls, problems, strict=True)) / count
        answered = [
            prompt_text(terms, True, tokenizer) + call_text(terms) + "<|im_end|>" + tool_turn(str(sum(terms)))
            for terms in problems
        ]
        lines = written(model, tokenizer, answered, 0.0)
        row["last_line"] = sum(line == f"#### {sum(t)}" for line, t in zip(lines, problems, strict=True)) / count
        table.append(row)
    return table


def missed_goals(table: list[dict[str, float]]) -> list[str]:
    """What a base model needs and the evaluation does not show."""
    missed = []
    for row in table:
        size, short = row["terms"], row["terms"] <= HABIT
        if short and row["plain_greedy"] < 0.9:
            missed.append(f"plain sums of {size} are asked for in {row['plain_greedy']:.0%}, wanted 90% or more")
        if not short and row["plain_sampled"] > 0.1:
            missed.append(f"plain sums of {size} are asked for in {row['plain_sampled']:.0%}, wanted 10% or less")
        if row["privileged_sampled"] < 0.2:
            missed.append(f"privileged sums of {size}: {row['privileged_sampled']:.0%} whole, wanted 20% or more")
    return missed


def make(out: Path, settings: Settings, eval_problems: int) -> None:
    """Train, evaluate and save; nothing to do where ``out`` holds the model of these settings already."""
    if is_made(out, settings.record()):
        print(f"{out} already holds the model of these settings; nothing to do")
        return
    torch.set_num_threads(THREADS)
    tokenizer = make_agent_tokenizer()
    model = train(settings, tokenizer, encode_conversations)
    table = evaluate(model, tokenizer, eval_problems, settings.seed)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    publish(out, settings.record(), table, save)
    print_table(table)
    for line in missed_goals(table):
        print(f"warning: {line}; train longer (--steps) or with another --seed")
    print(f"saved {model.num_parameters():,} parameters to {out}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make a base model for sums that calls a calculator.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--steps", type=int, default=DEFAULT.steps, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=DEFAULT.seed, help="same seed and threads, same model")
    parser.add_argument("--eval-problems", type=int, default=50, help="evaluated problems per number of terms")
    args = parser.parse_args(argv)
    if min(args.steps, args.eval_problems) < 1:
        parser.error("--steps and --eval-problems must be 1 or more")
    settings = Settings(steps=args.steps, seed=args.seed, plain_weights=DEFAULT.plain_weights)
    try:
        make(args.out, settings, args.eval_problems)
    except FolderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("next: bash examples/cpu_tool_agent.sh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
