"""What the hot path reads off the device: nothing. A meta tensor has no values, so that any read of one raises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK, teacher_topk
from recipe.hdpo.config.checks import check_config
from recipe.hdpo.training import mini_batch
from recipe.hdpo.training.loss import DIVERGENCE, HDPOLoss
from tests.hdpo.composed_config import composed

META = torch.device("meta")


def _teacher(rows_M: int, k: int) -> TeacherTopK:
    return TeacherTopK(ids=torch.arange(k).expand(rows_M, k).contiguous(), log_probs=torch.full((rows_M, k), -3.0))


def _mixed_batch() -> TensorDict:
    """Rollout, kept, rollout, dummy, kept; every row of other lengths."""
    prompts = [torch.arange(n) + 10 * n for n in (2, 3, 4, 1, 2)]
    responses = [torch.arange(n) + 100 * n for n in (5, 2, 1, 1, 3)]
    batch = mini_batch.sequence_batch(
        prompts, responses, [mini_batch.ROLLOUT_ROW, 0, mini_batch.ROLLOUT_ROW, mini_batch.DUMMY_ROW, 1]
    )
    batch["advantages"] = mini_batch.nested([r.float() for r in responses])
    tu.assign_non_tensor(batch, dp_size=1)
    return batch


@pytest.mark.parametrize("protect", [True, False])
@pytest.mark.parametrize("selected", [[0, 1, 2, 3, 4, 5], [1, 2, 5], [4, 0]], ids=str)
@pytest.mark.parametrize("kind", ["jsd", "forward_kl", "reverse_kl"])
def test_the_divergence_of_host_rows_reads_nothing_off_the_device(kind: Any, selected: list[int], protect: bool):
    logits = torch.empty(6, 9, device=META, dtype=torch.bfloat16, requires_grad=True)
    teacher = _teacher(len(selected), 4)
    found = topk_divergence(logits, teacher, torch.tensor(selected), kind=kind, protect_logits=protect, chunk_size=2)
    found.per_token.sum().backward()
    assert logits.grad is not None and logits.grad.shape == (6, 9)


def test_rows_on_the_device_are_read_off_it_to_be_checked():
    logits = torch.empty(6, 9, device=META)
    with pytest.raises((NotImplementedError, RuntimeError)):
        topk_divergence(logits, _teacher(6, 4), torch.arange(6, device=META))


@pytest.mark.parametrize("rows_M", [None, torch.tensor([3, 0, 3])], ids=["all", "some"])
def test_the_teachers_top_k_reads_nothing_off_the_device(rows_M: torch.Tensor | None):
    found = teacher_topk(torch.empty(6, 9, device=META), 4, rows_M=rows_M)
    assert found.ids.shape == (6 if rows_M is None else 3, 4)


def test_the_losss_first_call_reads_nothing_off_the_device():
    batch = _mixed_batch()
    hdpo = check_config(composed())
    loss = HDPOLoss(actor_config=None, hdpo=hdpo, targets={0: _teacher(2, 4), 1: _teacher(3, 4)})  # type: ignore[arg-type]
    num_tokens = sum(row.length for row in mini_batch.row_info(batch))
    logits = torch.empty(1, num_tokens, 9, device=META, requires_grad=True)
    found = loss(student_logits=logits, data=batch.to(META))
    assert found[DIVERGENCE].shape == (1, num_tokens) and found[DIVERGENCE].requires_grad


def test_rollout_rows_are_selected_without_reading_the_device():
    batch = _mixed_batch().to(META)
    output = {
        "log_probs": torch.nested.nested_tensor_from_jagged(batch["input_ids"].values(), batch["input_ids"].offsets())
    }
    selected, of_model = mini_batch.rollout_rows(batch, output)
    assert selected["responses"].values().shape == (6,) and of_model["log_probs"].values().shape == (12,)


def test_selected_rollout_rows_are_the_ones_that_verl_selects_by_index():
    batch = _mixed_batch()
    output = {"log_probs": mini_batch.nested([r.float() for r in batch["input_ids"].unbind()])}
    selected, of_model = mini_batch.rollout_rows(batch, output)
    expected = tu.index_select_tensor_dict(batch, [0, 2])
    assert selected.batch_size == (2,) and selected["dp_size"] == 1
    for name in (*mini_batch.SEQUENCE_FIELDS, "advantages", "loss_mask"):
        parts = zip(selected[name].unbind(), expected[name].unbind(), strict=True)
        assert all(torch.equal(a, b) for a, b in parts), name
    parts = zip(of_model["log_probs"].unbind(), expected["input_ids"].unbind(), strict=True)
    assert all(torch.equal(a, b.float()) for a, b in parts)


def test_the_gradient_of_selected_outputs_reaches_the_rollout_rows_alone():
    batch = _mixed_batch()
    values = torch.zeros(len(batch["input_ids"].values()), requires_grad=True)
    output = {"log_probs": torch.nested.nested_tensor_from_jagged(values, batch["input_ids"].offsets())}
    mini_batch.rollout_rows(batch, output)[1]["log_probs"].values().sum().backward()
    of_row = [part.tolist() for part in values.grad.split([row.length for row in mini_batch.row_info(batch)])]
    assert of_row == [[1.0] * 7, [0.0] * 5, [1.0] * 5, [0.0] * 2, [0.0] * 5]


def test_positions_of_privileged_responses_by_hand():
    """Rows of 2+5, 3+2, 4+1, 1+1 and 2+3 tokens; the second and the last are privileged."""
    positions, privileged = mini_batch.response_positions(mini_batch.row_info(_mixed_batch()))
    assert positions.tolist() == [9, 10, 20, 21, 22] and positions.device.type == "cpu"
    assert [row.row_id for row in privileged] == [0, 1]


def test_a_batch_whose_rows_are_longer_than_the_host_knows_is_refused():
    batch = _mixed_batch()
    wrong = {"log_probs": mini_batch.nested([torch.zeros(len(r) + 1) for r in batch["input_ids"].unbind()])}
    with pytest.raises(AssertionError, match="29 values, but rows of 24"):
        mini_batch.rollout_rows(batch, wrong)
