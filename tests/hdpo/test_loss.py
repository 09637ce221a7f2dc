"""The loss's first call, on the logits of a micro-batch (the whole loss on real ranks: test_worker.py)."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict

from recipe.hdpo import loss as loss_module
from recipe.hdpo import rows
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.divergence import TeacherTopK
from recipe.hdpo.loss import DIVERGENCE, HDPOLoss
from tests.hdpo.test_config import composed


def _micro_batch(row_ids: list[int]) -> TensorDict:
    lengths = [5] * len(row_ids)
    return TensorDict(
        {
            "prompts": rows.nested([torch.ones(2, dtype=torch.long)] * len(lengths)),
            "responses": rows.nested([torch.ones(3, dtype=torch.long)] * len(lengths)),
            "input_ids": rows.nested([torch.ones(n, dtype=torch.long) for n in lengths]),
            rows.ROW_ID: torch.tensor(row_ids),
        },
        batch_size=[len(row_ids)],
    )


def _loss() -> HDPOLoss:
    from recipe.hdpo.config.checks import check_config

    hdpo: HDPOConfig = check_config(composed())
    teacher = TeacherTopK(ids=torch.tensor([[0, 1]] * 3), log_probs=torch.log(torch.tensor([[0.6, 0.3]] * 3)))
    config: Any = None
    return HDPOLoss(actor_config=config, hdpo=hdpo, targets={0: teacher})


def test_a_micro_batch_of_rollouts_alone_makes_no_buffer_of_the_logits_size(monkeypatch) -> None:
    monkeypatch.setattr(loss_module, "log_prob_backward_overwrites_logits", lambda logits: True)
    saved: list[torch.Tensor] = []
    logits = torch.randn(1, 10, 7, requires_grad=True)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        none = _loss()(student_logits=logits, data=_micro_batch([rows.ROLLOUT_ROW] * 2))
        assert saved == [] and not none[DIVERGENCE].requires_grad
        some = _loss()(student_logits=logits, data=_micro_batch([rows.ROLLOUT_ROW, 0]))
    assert saved and some[DIVERGENCE].requires_grad
    assert none.keys() == some.keys()
    for name, value in none.items():
        assert value.shape == some[name].shape == (1, 10) and value.dtype == some[name].dtype
        assert not value.any()
