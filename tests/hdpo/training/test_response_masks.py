"""Responses of agents: what a tool or an environment wrote is context, and neither learnt nor counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recipe.hdpo.algorithm.reference import Controls
from recipe.hdpo.training import mini_batch
from tests.hdpo.training.brute_force import (
    LAMBDA,
    Run,
    assert_same,
    brute_force,
    make_job,
    make_kept,
    make_rollouts,
    masked,
    response_logits,
)
from tests.hdpo.training.fsdp_ranks import Row, make_model

# Groups of ranks that read the same rows, and settings of the job.
SPLITS: dict[str, tuple[int, dict[str, Any]]] = {
    "1 rank, packed, one micro-batch": (1, dict(max_tokens=4096)),
    "1 rank, padded, 2 rows a micro-batch": (1, dict(packed=False, dynamic=False, micro_batch_size=2)),
    "2 ranks, packed, many micro-batches": (2, dict(max_tokens=32)),
    "2 ranks, padded, 1 row a micro-batch": (2, dict(packed=False, dynamic=False)),
    "2 ranks, each a slice of the tokens": (1, dict(max_tokens=16, engine={"ulysses_sequence_parallel_size": 2})),
}
HEADS = pytest.mark.parametrize("fused", [False, True], ids=["logits", "fused head"])


def rows_of_agents(kept: int = 3) -> tuple[list[Row], list[Row]]:
    """Rollouts and kept trajectories."""
    return masked(make_rollouts(1, 4), 5), masked(make_kept(2, kept), 6)


@HEADS
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_gradient_equals_brute_force_over_the_tokens_that_the_model_wrote(
    run: Run, model_dir: str, split: tuple[int, dict[str, Any]], fused: bool
) -> None:
    rollouts, kept = rows_of_agents()
    groups, options = split
    expected, jsd = brute_force(model_dir, rollouts, kept)
    result = run(make_job(model_dir, groups, rollouts, kept, hdpo={"fused_head": fused}, **options))
    assert_same(result.gradients[0], expected)
    assert result.metrics["hdpo/jsd_mean"][0] == pytest.approx(jsd, rel=1e-5)
    assert result.metrics["hdpo/loss_distillation"][0] == pytest.approx(LAMBDA * jsd, rel=1e-5)


def test_a_mask_in_the_middle_changes_the_gradient(model_dir: str) -> None:
    """So that the test above can fail: of a mask that is not read, and of one that is read one token late."""
    rollouts, kept = rows_of_agents()
    expected, _ = brute_force(model_dir, rollouts, kept)
    for change in (lambda mask: None, lambda mask: [1, *mask[:-1]]):
        others = [Row(r.prompt, r.response, teacher_prompt=r.teacher_prompt, mask=change(r.mask)) for r in kept]
        found, _ = brute_force(model_dir, rollouts, others)
        assert max(float((found[n] - expected[n]).abs().max()) for n in expected) > 1e-3


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_kept_row_of_which_the_model_wrote_nothing_adds_nothing(run: Run, model_dir: str, ranks: int) -> None:
    rollouts, kept = rows_of_agents()
    kept[0].mask = [0] * len(kept[0].response)
    expected, _ = brute_force(model_dir, rollouts, kept[1:])
    assert_same(run(make_job(model_dir, ranks, rollouts, kept, max_tokens=32)).gradients[0], expected)
    alone, _ = brute_force(model_dir, rollouts, [])
    assert_same(run(make_job(model_dir, ranks, rollouts, kept[:1], max_tokens=32)).gradients[0], alone)


def test_one_agents_row_on_two_ranks_and_a_frozen_teacher(run: Run, model_dir: str, tmp_path: Path) -> None:
    frozen = make_model(tmp_path / "frozen", seed=7)
    rollouts, kept = rows_of_agents(kept=2)
    expected, _ = brute_force(model_dir, rollouts, kept[1:], teacher_dir=frozen)
    job = make_job(model_dir, 2, rollouts, kept[1:], max_tokens=40, frozen_dir=frozen, hdpo={"teacher": "frozen"})
    assert_same(run(job).gradients[0], expected)


@HEADS
def test_controls_of_tokens_weigh_and_clip_what_the_model_wrote(run: Run, model_dir: str, fused: bool) -> None:
    """The reliance is a mean over these tokens, too."""
    rollouts, kept = rows_of_agents()
    controls = {"clip": 0.1, "entropy_damping": 0.7, "reliance_damping": 0.4}
    expected, jsd = brute_force(model_dir, rollouts, kept, controls=Controls(**controls))
    hdpo = {f"divergence.{name}": value for name, value in controls.items()} | {"fused_head": fused}
    result = run(make_job(model_dir, 2, rollouts, kept, max_tokens=32, hdpo=hdpo))
    assert_same(result.gradients[0], expected)
    assert result.metrics["hdpo/loss_distillation"][0] == pytest.approx(LAMBDA * jsd, rel=1e-5)


def test_hard_labels_are_the_tokens_that_the_model_wrote(run: Run, model_dir: str) -> None:
    from transformers import AutoModelForCausalLM

    _, kept = rows_of_agents()
    silent = [Row(r.prompt, r.response) for r in make_rollouts(1, 2)]
    job = make_job(model_dir, 2, silent, kept, hdpo={"divergence.kind": "cross_entropy"})
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    logits = torch.cat([response_logits(model, row.prompt, row.response) for row in kept])
    labels = [t if is_own else -100 for row in kept for t, is_own in zip(row.response, row.response_mask, strict=True)]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    (LAMBDA * loss).backward()
    result = run(job)
    assert result.metrics["hdpo/jsd_mean"][0] == pytest.approx(loss.item(), rel=1e-5)
    assert_same(result.gradients[0], {n: p.grad for n, p in model.named_parameters()})


def test_the_masses_are_means_over_the_distilled_tokens_and_gradient_norms_are_theirs(run: Run, model_dir: str) -> None:
    rollouts, kept = rows_of_agents()
    job = make_job(model_dir, 1, rollouts, kept, measure_gradients=True, hdpo={"topk": None})
    metrics = run(job).metrics
    assert metrics["hdpo/teacher_topk_mass"][0] == pytest.approx(1.0)
    assert metrics["hdpo/student_topk_mass"][0] == pytest.approx(1.0)
    silent, _ = brute_force(model_dir, [Row(r.prompt, r.response) for r in rollouts], kept, topk=19)
    norm = torch.cat([g.flatten() for g in silent.values()]).norm()
    assert metrics["hdpo/grad_norm_distillation"][0] == pytest.approx(norm.item(), rel=1e-4)


def test_positions_of_distilled_tokens_by_hand() -> None:
    """Rows of 2+3 (a rollout), 3+4, 1+2 and 2+2 tokens; of the second the two in the middle are a tool's."""
    prompts, responses = ([torch.arange(n) for n in lengths] for lengths in ((2, 3, 1, 2), (3, 4, 2, 2)))
    masks = [torch.ones(3), torch.tensor([1, 0, 0, 1]), torch.tensor([0, 0]), torch.ones(2)]
    ids = [mini_batch.ROLLOUT_ROW, 0, 1, 2]
    batch = mini_batch.sequence_batch(prompts, responses, ids, masks)
    positions, privileged = mini_batch.response_positions(mini_batch.row_info(batch))
    assert positions.tolist() == [7, 10, 16, 17] and positions.device.type == "cpu"
    assert [row.num_distilled for row in privileged] == [2, 0, 2]
    assert privileged[0].is_distilled().tolist() == [True, False, False, True]
