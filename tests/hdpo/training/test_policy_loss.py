"""The policy loss ``hdpo`` is verl's clipped loss in the recipe's worker, and refuses to run anywhere else."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from recipe.hdpo.training.policy_loss import use_clipped_loss


def test_the_worker_reads_hdpo_as_verls_clipped_loss_and_leaves_other_losses_alone() -> None:
    for given, read in {"hdpo": "vanilla", "vanilla": "vanilla", "gspo": "gspo", "geo_mean": "geo_mean"}.items():
        actor = OmegaConf.create({"policy_loss": {"loss_mode": given, "ppo_kl_coef": 0.1}})
        OmegaConf.set_struct(actor, True)
        use_clipped_loss(actor)
        assert actor == {"policy_loss": {"loss_mode": read, "ppo_kl_coef": 0.1}}


def test_outside_the_worker_it_says_what_to_set() -> None:
    from verl.trainer.ppo.core_algos import get_policy_loss_fn

    ones = torch.ones(3, 4)
    with pytest.raises(RuntimeError, match=r"trainer\.v1\.trainer_mode=hdpo"):
        get_policy_loss_fn("hdpo")(ones, ones, ones, ones, loss_agg_mode="token-mean", config=None)
