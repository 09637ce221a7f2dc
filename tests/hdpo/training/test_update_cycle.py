"""verl puts a cycle's first weights into place before each of its updates; teacher and student read their own."""

from __future__ import annotations

import pytest
import torch

from tests.hdpo.training.brute_force import make_job, make_kept, make_rollouts
from tests.hdpo.training.fsdp_ranks import RankGroups
from tests.hdpo.training.several_steps import Step, several_steps
from tests.hdpo.training.update_cycle import update_cycle


@pytest.mark.parametrize("ranks", [1, 2])
def test_each_update_of_a_cycle_reads_the_teacher_with_the_weights_that_it_begins_with(
    rank_groups: RankGroups, model_dir: str, ranks: int
) -> None:
    def steps() -> list[Step]:
        share = 4 // ranks
        parts = [make_rollouts(10 + i, 4) for i in range(2)]
        return [
            Step([rows[r * share : (r + 1) * share] for r in range(ranks)], make_kept(20 + i, 3))
            for i, rows in enumerate(parts)
        ]

    def job():
        return make_job(model_dir, ranks, make_rollouts(1, 4), [], sgd=True, lr=1.0)

    plain = rank_groups[ranks].call(several_steps, job(), steps())
    cycle = rank_groups[ranks].call(update_cycle, job(), steps())
    before, again, first, end = cycle.weights
    assert before.keys() == plain.weights[0].keys()
    for name, weight in before.items():
        assert torch.equal(weight, first[name]) and torch.equal(weight, plain.weights[0][name])
        assert torch.equal(again[name], plain.weights[1][name]) and torch.equal(end[name], plain.weights[2][name])
    assert any(not torch.equal(before[name], again[name]) for name in before)
    for ours, theirs in zip(cycle.metrics, plain.metrics, strict=True):
        assert ours["hdpo/jsd_mean"] == theirs["hdpo/jsd_mean"]
