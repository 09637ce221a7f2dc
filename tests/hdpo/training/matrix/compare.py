"""A case on real ranks, held against its definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from tests.hdpo.training.brute_force import LAMBDA, TOPK
from tests.hdpo.training.fsdp_ranks import Job
from tests.hdpo.training.matrix.cases import (
    CHECKPOINTING,
    CUTS,
    GATHERING,
    GRADIENT_NORMS,
    HEADS,
    OBJECTIVES,
    PRECISIONS,
    SHAPES,
    STEPS,
    STORAGE,
    Case,
)
from tests.hdpo.training.matrix.definition import Files, by_rank, expected, make_rows, plain_model, rounding


def job_of(case: Case, files: Files, rate: float) -> Job:
    """The case for the ranks. Every data-parallel rank holds its share of every mini-batch."""
    rollouts, kept = make_rows(case)
    adapter = {"lora_rank": 4, "lora_alpha": 8, "lora_adapter_path": files.adapters[case.embeddings]}
    return Job(
        rollouts=[[row for part in rollouts for row in by_rank(part, case.dealt_to)[r]] for r in range(case.dealt_to)],
        kept=[row for part in kept for row in part],
        model_dir=files.models[case.embeddings],
        mini_batch_size=len(rollouts[0]),
        frozen_dir=files.teacher_dir(case),
        measure_gradients=GRADIENT_NORMS[case.norms],
        epochs=STEPS[case.steps][1],
        sgd=True,
        lr=rate,
        hdpo={
            "distillation_loss_coef": LAMBDA,
            "topk": TOPK,
            "teacher": "frozen" if "frozen" in case.teacher else "drifting",
            **HEADS[case.head],
        },
        actor=OBJECTIVES[case.objective].actor,
        engine={
            **SHAPES[case.shape][1],
            **STORAGE[case.storage],
            **GATHERING[case.gathering],
        },
        model={**CHECKPOINTING[case.checkpointing], **(adapter if "adapter" in case.teacher else {})},
        **CUTS[case.cut],
        **PRECISIONS[case.precision],
    )


@dataclass
class Errors:
    """How far the ranks' update is from the definition's.

    Attributes:
        change: of all weights together, as a share of the norm of the expected change.
        jsd, norms: relative differences of the first step's mean JSD_k and measured gradient norms.
    """

    change: float
    jsd: float
    norms: float


def compare(case: Case, run: Callable[[Job], Any], files: Files) -> Errors:
    """Run a case and hold it against the definition."""
    want = expected(case, files)
    result = run(job_of(case, files, want.rate))
    before = dict(_plain_weights(case, files))
    assert want.change.keys() <= result.weights.keys(), sorted(want.change.keys() - result.weights.keys())
    change = {n: result.weights[n].float() - before[n] for n in before}
    # What has no gradient, such as the weights under an adapter, must not move.
    error = {n: change[n] - want.change.get(n, torch.zeros(())) for n in before}
    norm = torch.cat([g.flatten() for g in want.change.values()]).norm()
    measured = {n: result.metrics.get(f"hdpo/grad_norm_{n}", [None])[0] for n in want.norms}
    assert all((value is not None) == GRADIENT_NORMS[case.norms] for value in measured.values()), measured
    return Errors(
        change=float(torch.cat([e.flatten() for e in error.values()]).norm() / norm),
        jsd=abs(float(result.metrics["hdpo/jsd_mean"][0]) / want.jsd - 1),
        norms=max(abs(value / want.norms[n] - 1) if value is not None else 0.0 for n, value in measured.items()),
    )


def _plain_weights(case: Case, files: Files) -> Iterable[tuple[str, torch.Tensor]]:
    adapter = files.adapters[case.embeddings] if "adapter" in case.teacher else None
    return ((n, p.detach()) for n, p in plain_model(files.models[case.embeddings], adapter).named_parameters())


# bf16 has 8 bits. Which sums of gradients are rounded to them depends on the cut.
ROUNDED = 0.06
# So many times what bf16 does to the definition's own update: the engine rounds sums of gradients as well.
TIMES = 3


def is_exact(case: Case, errors: Errors, files: Files) -> bool:
    """Rounding alone: of float32 weights of about 1 that move by 0.1 in all, or else of gradients to bf16. Where bf16
    moves the definition's own update (a ratio may pass the edge of the clip), :data:`TIMES` as far."""
    if max(errors.jsd, errors.norms) >= (1e-4 if case.rounds_as_defined else ROUNDED):
        return False
    if case.rounds_as_defined:
        return errors.change < 1e-4
    return errors.change < ROUNDED or errors.change < TIMES * rounding(case, files)
