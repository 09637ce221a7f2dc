"""The policy loss ``hdpo`` is verl's clipped term, and refuses to stand in for HDPO."""

import pytest
import torch

from recipe.hdpo.training.policy_loss import compute_policy_loss_hdpo, inside_hdpo_worker


def _arguments() -> dict:
    from verl.workers.config import ActorConfig, OptimizerConfig

    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(3, 4, generator=generator)  # noqa: E731
    config = ActorConfig(strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=1, optim=OptimizerConfig(lr=1e-3))
    return dict(old_log_prob=draw(), log_prob=draw(), advantages=draw(), response_mask=torch.ones(3, 4), config=config)


def test_it_equals_verls_clipped_loss_inside_the_worker() -> None:
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla

    arguments = _arguments()
    with inside_hdpo_worker():
        loss, metrics = compute_policy_loss_hdpo(**arguments)
    expected, expected_metrics = compute_policy_loss_vanilla(**arguments)
    assert torch.equal(loss, expected) and metrics == expected_metrics


def test_outside_the_worker_it_says_what_to_set() -> None:
    with pytest.raises(RuntimeError, match=r"trainer\.v1\.trainer_mode=hdpo"):
        compute_policy_loss_hdpo(**_arguments())
    with inside_hdpo_worker():
        pass
    with pytest.raises(RuntimeError):
        compute_policy_loss_hdpo(**_arguments())
