"""Made sequences, and the gradient of the loss by definition: a plain model, one sequence at a time, by autograd."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch

from recipe.hdpo.algorithm.reference import Controls, Kept, Rollout, hdpo_loss
from tests.hdpo.training.fsdp_ranks import VOCABULARY, Job, Result, Row

Run = Callable[[Job], Result]
LAMBDA = 0.7
TOPK = 5


def tokens(rng: random.Random, low: int, high: int) -> list[int]:
    return [rng.randrange(1, VOCABULARY) for _ in range(rng.randint(low, high))]


def make_rollouts(seed: int, count: int) -> list[Row]:
    rng = random.Random(seed)
    return [
        Row(tokens(rng, 2, 6), tokens(rng, 1, 9), advantage=rng.uniform(-2, 2), old_log_prob_shift=rng.uniform(-1, 1))
        for _ in range(count)
    ]


def make_kept(seed: int, count: int) -> list[Row]:
    rng = random.Random(seed)
    return [Row(tokens(rng, 2, 5), tokens(rng, 2, 8), teacher_prompt=tokens(rng, 6, 12)) for _ in range(count)]


def masked(rows: list[Row], seed: int) -> list[Row]:
    """The same rows of an agent: each long enough has tokens of a tool in its middle, and one begins with some."""
    rng = random.Random(seed)
    for i, row in enumerate(rows):
        last = len(row.response) - 1
        begin = 0 if i == 1 else min(1, last)
        end = rng.randint(min(begin + 1, last), last)
        row.mask = [int(not begin <= t < end) for t in range(len(row.response))]
    assert any(0 in row.mask[1:-1] for row in rows)
    return rows


def response_logits(model: torch.nn.Module, prompt: list[int], response: list[int]) -> torch.Tensor:
    logits = model(torch.tensor([prompt + response])).logits[0]
    return logits[len(prompt) - 1 : -1]


def brute_force(
    model_dir: str,
    rollouts: list[Row],
    kept: list[Row],
    *,
    topk: int = TOPK,
    teacher_dir: str | None = None,
    update: dict[str, torch.Tensor] | None = None,
    update_teacher: bool = False,
    mixed_weight: float = 1.0,
    controls: Controls | None = None,
) -> tuple[dict[str, torch.Tensor], float]:
    """Gradient of L_GRPO (token-mean, clip 0.2) + LAMBDA * L_JSD, and L_JSD, by :func:`hdpo_loss`.

    ``update`` is added to the student's weights first, and on request to the teacher's. ``mixed_weight`` is that of the
    teacher's log-probabilities beside those of ``model_dir``.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    teacher = AutoModelForCausalLM.from_pretrained(teacher_dir or model_dir, dtype=torch.float32)
    for name, change in (update or {}).items():
        model.get_parameter(name).data += change
        if update_teacher:
            teacher.get_parameter(name).data += change
    samples = [
        Rollout(
            response_logits(model, row.prompt, row.response),
            row.response,
            [-2.0 + row.old_log_prob_shift] * len(row.response),
            row.advantage,
            row.response_mask,
        )
        for row in rollouts
    ]

    def teacher_logits(row: Row) -> torch.Tensor:
        log_probs = [response_logits(m, row.teacher_prompt, row.response).log_softmax(-1) for m in (model, teacher)]
        return (1 - mixed_weight) * log_probs[0] + mixed_weight * log_probs[1]

    pairs = [
        Kept(response_logits(model, row.prompt, row.response), teacher_logits(row), row.response, row.response_mask)
        for row in kept
    ]
    loss = hdpo_loss(samples, pairs, coef=LAMBDA, topk=topk, controls=controls or Controls())
    loss.total.backward()
    return {n: p.grad for n, p in model.named_parameters()}, float(loss.jsd.detach())


def assert_same(gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float = 2e-6) -> None:
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=2e-4, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def make_job(model_dir: str, ranks: int, rollouts: list[Row], kept: list[Row], **options) -> Job:
    share = len(rollouts) // ranks
    parts = [rollouts[r * share : (r + 1) * share] for r in range(ranks)]
    hdpo = {"distillation_loss_coef": LAMBDA, "topk": TOPK, **options.pop("hdpo", {})}
    return Job(rollouts=parts, kept=kept, model_dir=model_dir, hdpo=hdpo, **options)
