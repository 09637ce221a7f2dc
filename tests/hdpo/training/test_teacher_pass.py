"""The teacher pass in micro-batches of its own: larger than the update's, since it keeps no activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.hdpo.training.brute_force import TOPK, make_job, make_kept, response_logits
from tests.hdpo.training.fsdp_ranks import PAD, Job, RankGroups, Row, hdpo_config, start_actor

# What the teacher's worker takes at a time, and how many micro-batches of these five rows that makes.
CUTS = {
    "packed": ({}, "infer_max_token_len_per_gpu", {24: 5, 4096: 1}),
    "padded": ({"packed": False}, "infer_max_token_len_per_gpu", {24: 5, 4096: 1}),
    "packed, a fixed number of rows": ({"dynamic": False}, "infer_micro_batch_size_per_gpu", {1: 5, 5: 1}),
    "packed, a fixed number of rows and no budget": (
        {"dynamic": False, "engine": {"infer_max_token_len_per_gpu": None}},
        "infer_micro_batch_size_per_gpu",
        {1: 5, 5: 1},
    ),
    "padded, a fixed number of rows": (
        {"packed": False, "dynamic": False},
        "infer_micro_batch_size_per_gpu",
        {1: 5, 5: 1},
    ),
}


def read(rank: int, job: Job, rows: list[Row], setting: str, sizes: list[int]) -> list[tuple[int, dict[int, Any]]]:
    """Number of micro-batches, and the teacher's top-k by row, for each size."""
    from verl.utils import tensordict_utils as tu

    from recipe.hdpo.training import mini_batch
    from recipe.hdpo.training.teacher_pass import TopKCollector, read_topk

    class Counting(TopKCollector):
        micro_batches = 0

        def logits(self, student_logits: torch.Tensor, data: Any) -> tuple[torch.Tensor, ...]:
            self.micro_batches += 1
            return super().logits(student_logits, data)

    worker, hdpo = start_actor(job).worker, hdpo_config(**job.hdpo)
    found = []
    for size in sizes:
        setattr(worker.engine_config, setting, size)
        prompts, responses = ([torch.tensor(getattr(r, n)) for r in rows] for n in ("teacher_prompt", "response"))
        batch = mini_batch.sequence_batch(prompts, responses, list(range(len(rows))))
        tu.assign_non_tensor(batch, temperature=1.0)
        collector = Counting(hdpo)
        targets = read_topk(worker, batch, hdpo, collector=collector)
        found.append((collector.micro_batches, targets))
    return found


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_larger_micro_batches_of_the_teacher_give_the_same_top_k(
    rank_groups: RankGroups, model_dir: str, cut: tuple[dict[str, Any], str, dict[int, int]]
) -> None:
    from transformers import AutoModelForCausalLM

    options, setting, expected = cut
    rows = make_kept(2, 5)
    job = make_job(model_dir, 1, [Row([1], [2])], [], max_tokens=24, **options)
    found = rank_groups[1].call(read, job, rows, setting, list(expected))
    assert [number for number, _ in found] == list(expected.values())
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    for i, row in enumerate(rows):
        with torch.no_grad():
            top = response_logits(model, row.teacher_prompt or [PAD], row.response).log_softmax(-1).topk(TOPK)
        for _, targets in found:
            assert torch.equal(targets[i].ids, top.indices)
            torch.testing.assert_close(targets[i].log_probs, top.values, rtol=1e-4, atol=1e-5)
