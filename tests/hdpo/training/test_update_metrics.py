"""What verl's metrics say of a mini-batch with privileged rows: tokens of all ranks, and one number for each mean."""

from __future__ import annotations

import pytest
from verl.utils.metric import AggregationType, Metric

from recipe.hdpo.training.update_metrics import average_over_micro_batches
from tests.hdpo.training.brute_force import make_job, make_kept, make_rollouts
from tests.hdpo.training.fsdp_ranks import Job, RankGroups, hand_over, rollout_batch, start_actor


def counted_tokens(rank: int, job: Job) -> list[list[int]]:
    """The lengths that each optimizer step's FLOPs are estimated from."""
    worker, found = start_actor(job).worker, []

    class Counter:
        def estimate_flops(self, lengths: list[int], seconds: float, **_: object) -> tuple[float, float]:
            found.append(sorted(lengths))
            return 1.0, 1.0

    worker.flops_counter = Counter()
    data = rollout_batch(job, rank)
    hand_over(worker, job.kept, data)
    worker.train_mini_batch(data)
    return found


@pytest.mark.parametrize("ranks", [1, 2])
def test_flops_are_counted_of_rollouts_and_of_privileged_rows_of_all_ranks(
    rank_groups: RankGroups, model_dir: str, ranks: int
) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 1)
    found = rank_groups[ranks].call(counted_tokens, make_job(model_dir, ranks, rollouts, kept, mini_batch_size=2))
    of_rollouts = sorted(len(row.prompt) + len(row.response) for row in rollouts)
    [student] = [len(row.prompt) + len(row.response) for row in kept]
    # A rank without a privileged row has a dummy of two tokens in its place.
    first, second = found
    assert sorted([*first, *second]) == sorted([*of_rollouts, student, *[2] * (ranks - 1)])
    assert student in first and len(first) == 2 + ranks and len(second) == 2


def test_plain_numbers_become_the_mean_over_ranks_of_means_over_micro_batches_and_all_else_stays() -> None:
    total = Metric(AggregationType.SUM, 1.0)
    metrics = {"kl": [[1.0, 2.0, 6.0], [5.0]], "sum": [total, total], "norm": 0.5, "text": ["a"]}
    average_over_micro_batches(metrics)
    assert metrics == {"kl": 4.0, "sum": [total, total], "norm": 0.5, "text": ["a"]}
