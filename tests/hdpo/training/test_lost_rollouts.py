"""Too many lost rollouts stop the run with the first error; a few leave every other row as it is."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from recipe.hdpo.algorithm.advantage import compute_hdpo_advantage, leave_one_out_advantage
from recipe.hdpo.algorithm.cliff import UNSCORED, GroupRecord
from recipe.hdpo.tracking.run_history import History
from recipe.hdpo.tracking.step_metrics import lost_too_many
from recipe.hdpo.tracking.teacher_collapse import CollapseMonitor
from recipe.hdpo.training import trainer as trainer_module
from recipe.hdpo.training.lost_samples import refuse_empty_validation
from recipe.hdpo.transfer import record_key, record_tag
from tests.hdpo.training.test_trainer_step import Queue, make_trainer

FIRST, LATER = "UnscoredRollout: the reward function returned None", "RuntimeError: the engine died"


def _batch(*lost: int, size: int = 4) -> KVBatchMeta:
    """Groups of ``size`` rollouts, of which so many are lost; the errors come in the opposite order of the groups."""
    tags: dict[str, dict] = {}
    for i, missing in enumerate(lost):
        text = "" if not missing else FIRST if i == len(lost) - 1 else LATER
        record = GroupRecord(f"p{i}", False, False, missing, size=size, first_error=text, first_error_at=9.0 - i)
        tags |= {record_key(f"u{i}"): record_tag(record)}
        tags |= {f"u{i}_{s}_0": {"status": "success", "seq_len": 3} for s in range(size - missing)}
    return KVBatchMeta(list(tags), list(tags.values()), "train", extra_info={})


def _balanced(monkeypatch: pytest.MonkeyPatch, batch: KVBatchMeta, *overrides: str) -> dict[str, Any]:
    monkeypatch.setattr(trainer_module, "tq", Queue())
    monkeypatch.setattr(PPOTrainer, "_balance_batch", lambda self, batch, metrics, **_: batch)
    trainer, metrics = make_trainer(7, *overrides), dict[str, Any]()
    trainer.history = History(CollapseMonitor(0.5))
    trainer._balance_batch(batch, metrics)
    return metrics


def test_up_to_half_of_the_rollouts_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _balanced(monkeypatch, _batch(4, 0))["hdpo/lost_rollouts"] == 4


def test_more_than_half_stops_the_run_with_the_first_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError) as error:
        _balanced(monkeypatch, _batch(3, 2))
    said = "step 7: 5 of 8 rollouts were lost, more than hdpo.max_lost_rollouts=0.5 allows; the first error was: "
    assert str(error.value) == said + FIRST


@pytest.mark.parametrize(("most", "lost", "stops"), [(0.0, (1, 0), True), (0.0, (0, 0), False), (0.25, (2, 0), False)])
def test_the_share_is_a_knob(monkeypatch: pytest.MonkeyPatch, most: float, lost: tuple, stops: bool) -> None:
    override = f"hdpo.max_lost_rollouts={most}"
    if stops:
        with pytest.raises(RuntimeError, match=f"1 of 8 rollouts were lost.*{LATER}"):
            _balanced(monkeypatch, _batch(*lost), override)
    else:
        assert _balanced(monkeypatch, _batch(*lost), override)["hdpo/lost_rollouts"] == sum(lost)


def test_a_step_without_any_rollout_stops_the_run_whatever_the_knob_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=f"8 of 8 rollouts were lost.*{FIRST}"):
        _balanced(monkeypatch, _batch(4, 4), "hdpo.max_lost_rollouts=1")
    assert _balanced(monkeypatch, _batch(4, 3), "hdpo.max_lost_rollouts=1")["hdpo/lost_rollouts"] == 7


def test_records_of_before_without_a_size_stop_nothing() -> None:
    assert lost_too_many([], 0.5) is None and lost_too_many([GroupRecord("p", True, False)], 0.0) is None


def test_prompts_that_are_replaced_without_end_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PPOTrainer, "_add_prompts_to_generate", lambda self, num_prompts: num_prompts)
    monkeypatch.setattr(PPOTrainer, "_step_once", lambda self, metrics, timing, size: None)
    trainer = make_trainer(3, "data.train_batch_size=4", kept={})
    for _ in range(2):
        trainer._step_once({}, {}, 4)
        assert [trainer._add_prompts_to_generate(1) for _ in range(2)] == [1, 1]
    with pytest.raises(RuntimeError, match=r"step 3: 3 prompts lost all their rollouts.*hdpo\.max_lost_rollouts=0\.5"):
        trainer._add_prompts_to_generate(1)


def _validated(monkeypatch: pytest.MonkeyPatch, reasons: list[str | None]) -> dict[str, float]:
    monkeypatch.setattr(PPOTrainer, "_val_metrics_update", lambda self, *_, **__: {})
    samples: dict[str, list] = {"reward": [0.0 if reason else 1.0 for reason in reasons]}
    if any(reason is not None for reason in reasons):
        samples[UNSCORED] = reasons
    uids = ["u"] * len(reasons)
    return make_trainer(5)._val_metrics_update(uids, uids, samples, [1], expected_acc_counts={("s", "u"): len(reasons)})


def test_validation_samples_without_a_reward_count_as_lost_and_too_many_stop_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for scored in ([None, None], ["", ""], [None, ""]):
        assert _validated(monkeypatch, scored) == {"val-hdpo/s/pass@1": 1.0, "val-hdpo/s/pass@2": 1.0}
    found = _validated(monkeypatch, [None, "it returned None"])
    assert found == {"val-hdpo/s/pass@1": 0.5, "val-hdpo/s/pass@2": 1.0, "val-hdpo/s/lost_samples": 1.0}
    with pytest.raises(RuntimeError, match=r"validation at step 5: 2 of 3 samples have no reward.*first: it returned"):
        _validated(monkeypatch, [None, "it returned None", "another"])


def test_validation_samples_that_are_not_there_are_lost_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PPOTrainer, "_val_metrics_update", lambda self, *_, **__: {})

    def validated(reasons: list[str | None], asked: int) -> dict[str, float]:
        uids = ["u"] * len(reasons)
        samples = {"reward": [1.0] * len(reasons), UNSCORED: reasons}
        return make_trainer(5)._val_metrics_update(uids, uids, samples, [1], expected_acc_counts={("s", "u"): asked})

    assert validated([None, None], 4)["val-hdpo/s/lost_samples"] == 2.0
    with pytest.raises(RuntimeError, match=r"validation at step 5: 3 of 4 samples have no reward.*worker's log says"):
        validated([None], 4)
    with pytest.raises(RuntimeError, match=r"3 of 4 samples have no reward.*the first: it returned None"):
        validated([None, "it returned None"], 4)


def test_a_validation_batch_of_no_sample_stops_the_run_with_words() -> None:
    found: dict[str, list[str]] = {"val": [], "train": []}
    buffer = SimpleNamespace(
        sample=lambda global_steps, partition_id, batch_size: (SimpleNamespace(keys=found[partition_id]), {"m": 1})
    )
    refuse_empty_validation(buffer)
    with pytest.raises(RuntimeError, match=r"validation at step 0: all samples of 8 prompts were lost to errors"):
        buffer.sample(global_steps=0, partition_id="val", batch_size=8)
    assert buffer.sample(global_steps=0, partition_id="train", batch_size=8)[1] == {"m": 1}
    found["val"] = ["u_0_0"]
    assert buffer.sample(global_steps=0, partition_id="val", batch_size=8)[0].keys == ["u_0_0"]


def test_a_step_all_of_whose_privileged_rollouts_were_lost_to_errors_is_told_with_the_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for rollouts, errors, told in ((0, 2, True), (1, 2, False), (0, 0, False)):
        caplog.clear()
        record = GroupRecord("p", True, False, size=1, rollouts=rollouts)
        for _ in range(errors):
            record.lose_privileged(ValueError("no class"))
        tags = [record_tag(record), {"status": "success", "seq_len": 3}]
        batch = KVBatchMeta([record_key("u"), "u_0_0"], tags, "train", extra_info={})
        assert _balanced(monkeypatch, batch)["hdpo/skipped_error"] == errors
        assert ("step 7: NO PRIVILEGED ROLLOUT CAME THROUGH" in caplog.text) is told
        assert ("errors cost 2 (hdpo/skipped_error); the first: ValueError: no class" in caplog.text) is told


@pytest.mark.parametrize("unknown", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_has_no_advantage_and_is_in_no_baseline(unknown: float) -> None:
    """Of 1, 0, 0, 0 the first has (1 - 0) with no spread, the others (0 - 1/3) / 0.577 = -0.577."""
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, unknown], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, unknown]])
    mask = torch.tensor([[1, 1], [1, 1], [1, 1], [1, 0], [1, 1], [1, 1], [1, 1]])
    advantages, _ = compute_hdpo_advantage(rewards, mask, index=["a", "a", "a", "a", "a", "b", "b"])
    third = -1 / math.sqrt(3)
    expected = [[1.0, 1.0], [third, third], [0.0, 0.0], [third, 0.0], [third, third], [0.0, 0.0], [0.0, 0.0]]
    torch.testing.assert_close(advantages, torch.tensor(expected))
    alone = leave_one_out_advantage(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(advantages[[0, 1, 3, 4], 0], alone)
