"""The loss's first call, on the logits of a micro-batch (the whole loss on real ranks: test_worker.py)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.checks import check_config
from recipe.hdpo.training import loss as loss_module
from recipe.hdpo.training import mini_batch
from recipe.hdpo.training import teacher_pass as teacher_module
from recipe.hdpo.training.loss import DIVERGENCE, HDPOLoss
from tests.hdpo.composed_config import composed


def _micro_batch(row_ids: list[int]) -> TensorDict:
    prompt, response = torch.ones(2, dtype=torch.long), torch.ones(3, dtype=torch.long)
    return mini_batch.sequence_batch([prompt] * len(row_ids), [response] * len(row_ids), row_ids)


def _loss(*overrides: str) -> HDPOLoss:
    hdpo: HDPOConfig = check_config(composed(*overrides))
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
        none = _loss()(student_logits=logits, data=_micro_batch([mini_batch.ROLLOUT_ROW] * 2))
        assert saved == [] and not none[DIVERGENCE].requires_grad
        some = _loss()(student_logits=logits, data=_micro_batch([mini_batch.ROLLOUT_ROW, 0]))
    assert saved and some[DIVERGENCE].requires_grad
    assert none.keys() == some.keys()
    for name, value in none.items():
        assert value.shape == some[name].shape == (1, 10) and value.dtype == some[name].dtype
        assert not value.any()


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("flash_attention", [True, False])
@pytest.mark.parametrize("disabled", [True, False])
def test_the_logits_overwritten_in_place_are_those_of_verls_flash_attention_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, on_gpu: bool, flash_attention: bool, disabled: bool
) -> None:
    monkeypatch.setattr(loss_module.verl_F, "FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE", flash_attention)
    monkeypatch.setenv("VERL_DISABLE_FLASH_ATTN_CE", str(int(disabled)))
    logits: Any = SimpleNamespace(is_cuda=on_gpu)
    overwritten = on_gpu and flash_attention and not disabled
    assert loss_module.log_prob_backward_overwrites_logits(logits) is overwritten


@pytest.mark.parametrize("overwritten", [True, False])
def test_logits_are_protected_where_they_are_overwritten_and_chunks_are_as_long_as_asked(
    monkeypatch: pytest.MonkeyPatch, overwritten: bool
) -> None:
    seen: dict[str, Any] = {}

    def divergence(*args: Any, **options: Any) -> Any:
        seen.update(options)
        return topk_divergence(*args, **options)

    monkeypatch.setattr(loss_module, "log_prob_backward_overwrites_logits", lambda logits: overwritten)
    monkeypatch.setattr(loss_module, "topk_divergence", divergence)
    loss = _loss("hdpo.divergence.chunk_size=2", "hdpo.divergence.beta=0.3")
    loss(student_logits=torch.randn(1, 10, 7), data=_micro_batch([mini_batch.ROLLOUT_ROW, 0]))
    assert seen == {"kind": "jsd", "beta": 0.3, "chunk_size": 2, "protect_logits": overwritten}


def test_the_teacher_pass_reads_chunks_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    original = teacher_module.teacher_topk
    monkeypatch.setattr(teacher_module, "teacher_topk", lambda *a, **o: seen.update(o) or original(*a, **o))
    collector = teacher_module.TopKCollector(check_config(composed("hdpo.divergence.chunk_size=2", "hdpo.topk=3")))
    collector(student_logits=torch.randn(1, 10, 7), data=_micro_batch([mini_batch.ROLLOUT_ROW, 5]))
    assert seen["chunk_size"] == 2 and collector.targets[5].ids.shape == (3, 3)


def test_masses_of_the_top_k_are_reported_for_either_side_by_hand() -> None:
    """Uniform logits over 7 tokens: the teacher's two tokens have 2/7 of the student's mass, and 0.9 of its own."""
    found = _loss()(student_logits=torch.zeros(1, 5, 7), data=_micro_batch([0]))
    response = found[loss_module.STUDENT_MASS][0] > 0
    assert response.tolist() == [False, True, True, True, False]
    torch.testing.assert_close(found[loss_module.STUDENT_MASS][0, response], torch.full((3,), 2 / 7))
    torch.testing.assert_close(found[loss_module.TEACHER_MASS][0, response], torch.full((3,), 0.9))
