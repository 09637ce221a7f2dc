"""How often a model solves problems in words, plain and with the reference before it: K sampled responses each.

The samples are drawn here, by transformers, in batches; no Ray and no vLLM.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from data_preprocess.word_problems import Problem
from examples.demo.sums_model import chat_prompt
from examples.language import MAX_RESPONSE
from examples.language.words_model import user_turn
from recipe.hdpo.reward import grade
from recipe.hdpo.step_check import arithmetic

# Rows that are generated together.
ROWS = 256


@dataclass(frozen=True)
class Sampled:
    """The K responses to a problem, plain or privileged."""

    problem: Problem
    responses: tuple[str, ...]

    @property
    def right(self) -> list[bool]:
        return [grade(response, self.problem.answer) for response in self.responses]

    @property
    def valid(self) -> list[bool]:
        """Of the right responses: whether every line of arithmetic is true."""
        return [arithmetic(r) == 1.0 for r, right in zip(self.responses, self.right, strict=True) if right]


def sample(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    chosen: Sequence[Problem],
    privileged: bool,
    n: int,
    temperature: float = 1.0,
) -> list[Sampled]:
    """``n`` responses to each problem, in the order of the problems."""
    prompts = [chat_prompt(user_turn(problem, privileged), tokenizer) for problem in chosen]
    how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    # Of like lengths together, so that little is padded.
    order = sorted(range(len(chosen)), key=lambda i: len(chosen[i].solution()))
    size = max(1, ROWS // n)
    texts: dict[int, tuple[str, ...]] = {}
    for start in tqdm(range(0, len(order), size), desc="privileged" if privileged else "plain", unit="batch"):
        part = order[start : start + size]
        batch = tokenizer([prompts[i] for i in part], padding=True, padding_side="left", return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**batch, max_new_tokens=MAX_RESPONSE, num_return_sequences=n, **how)
        written = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        texts |= {i: tuple(written[row * n : row * n + n]) for row, i in enumerate(part)}
    return [Sampled(problem, texts[i]) for i, problem in enumerate(chosen)]


def mean(values: Iterable[float]) -> float:
    """nan where there is nothing to take a mean of."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else float("nan")


def rates(plain: Sequence[Sampled], privileged: Sequence[Sampled]) -> dict[str, float]:
    """Of problems sampled both ways: pass@1, share of cliffs (no plain response is right), solve rate with the
    reference, of all and of the cliffs, and the shares of right responses whose arithmetic is valid throughout."""
    cliffs = {s.problem.key for s in plain if not any(s.right)}
    return {
        "problems": len(plain),
        "pass@1": mean(mean(s.right) for s in plain),
        "cliffs": len(cliffs) / len(plain),
        "valid": mean(v for s in plain for v in s.valid),
        "privileged": mean(mean(s.right) for s in privileged),
        "privileged_on_cliffs": mean(mean(s.right) for s in privileged if s.problem.key in cliffs),
        "privileged_valid": mean(v for s in privileged for v in s.valid),
    }


def by_difficulty(plain: Sequence[Sampled], privileged: Sequence[Sampled]) -> dict[str, dict[str, float]]:
    """:func:`rates` of every difficulty."""
    names = dict.fromkeys(s.problem.difficulty for s in plain)
    pick = lambda name, many: [s for s in many if s.problem.difficulty == name]  # noqa: E731
    return {name: rates(pick(name, plain), pick(name, privileged)) for name in names}


def print_rates(table: dict[str, dict[str, float]]) -> None:
    columns = list(next(iter(table.values())))
    width = max(map(len, table))
    print(" " * width + "  " + "  ".join(columns))
    for name, row in table.items():
        print(f"{name:<{width}}  " + "  ".join(f"{row[column]:>{len(column)}.3g}" for column in columns))


def show(sampled: Sequence[Sampled], privileged: bool, count: int, rng: random.Random) -> None:
    """Print ``count`` random problems with one response each, to read."""
    for chosen in rng.sample(list(sampled), min(count, len(sampled))):
        which = rng.randrange(len(chosen.responses))
        print("=" * 40, chosen.problem.difficulty, "right" if chosen.right[which] else "wrong")
        print(user_turn(chosen.problem, privileged), "-" * 8, chosen.responses[which], sep="\n")
