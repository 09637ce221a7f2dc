"""How the trainer takes a sampled batch apart and spreads kept rows over ranks; joins are by key."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.config.checks import check_config
from recipe.hdpo.tracking.cliff_history import CliffHistory
from recipe.hdpo.tracking.run_history import History
from recipe.hdpo.tracking.teacher_collapse import CollapseMonitor
from recipe.hdpo.training.trainer_sync import HDPOTrainerSync
from recipe.hdpo.training.waiting_cliffs import WaitingCliffs
from recipe.hdpo.transfer import record_tag, split_batch
from tests.hdpo.composed_config import composed


def test_a_batch_is_split_into_rollouts_kept_rows_and_records() -> None:
    record = GroupRecord("p", cliff=True, solved=False, rollouts=1, kept=1)
    tags = {
        "u_0_0": {"status": "success", "seq_len": 5},
        "u_hdpo_0": record_tag(record),
        "u_2_0": transfer.privileged_tag([1, 2], [1, 2, 3], [4]),
        "u_1_0": {"status": "success", "seq_len": 6},
    }
    batch = KVBatchMeta(list(tags), list(tags.values()), "train", extra_info={"temperature": 1.0})
    rollouts, kept, records = split_batch(batch)
    assert rollouts.keys == ["u_0_0", "u_1_0"] and rollouts.extra_info == {"temperature": 1.0}
    assert kept.keys == ["u_2_0"] and kept.tags[0]["seq_len"] == 7
    assert records == {"u_hdpo_0": record}


@given(st.permutations([(p, s) for p in "abc" for s in ("hdpo", 0, 2, 10)]))
def test_rows_come_in_order_of_problem_and_rollout_whatever_order_they_arrived_in(arrived: list) -> None:
    uids = {"a": "u9", "b": "u1", "c": "u5"}
    tags = {
        f"{uids[p]}_{s}_0": record_tag(GroupRecord(p, cliff=False, solved=True)) if s == "hdpo" else {"seq_len": 1}
        for p, s in arrived
    }
    rollouts, _, _ = split_batch(KVBatchMeta(list(tags), list(tags.values()), "train"))
    assert rollouts.keys == [f"{uids[p]}_{s}_0" for p in "abc" for s in (0, 2, 10)]


def test_the_trainer_is_registered_and_is_verls_synchronous_trainer() -> None:
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    assert get_trainer_cls("hdpo") is HDPOTrainerSync
    assert issubclass(HDPOTrainerSync, PPOTrainerSync)


def test_poll_interval_and_collapse_warning_reach_what_they_are_for_and_another_estimator_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    def init(self: PPOTrainer, config: object) -> None:
        self.config = config
        self.replay_buffer = SimpleNamespace(poll_interval=2.0, _wait_for_next_poll=None, sample=None)

    monkeypatch.setattr(PPOTrainer, "__init__", init)
    trainer = HDPOTrainerSync(composed("hdpo.poll_interval=0.25", "hdpo.collapse_warning=0.3"))
    assert caplog.text == ""
    asked = composed("algorithm.adv_estimator=grpo")
    HDPOTrainerSync(asked)
    assert asked.algorithm.adv_estimator == "hdpo"
    HDPOTrainerSync(composed("algorithm.adv_estimator=grpo", "hdpo.adv_estimator=null"))
    assert "advantages are verl's" in caplog.text
    assert trainer.history.teacher.threshold == 0.3
    assert HDPOTrainerSync(composed("+control=matched_grpo")).history.teacher.threshold == 0.0
    assert trainer.replay_buffer.poll_interval == 0.25 and trainer.replay_buffer.sample is not None
    assert (trainer.watchdog.stall_timeout, trainer.watchdog.look()) == (1800.0, None)
    assert trainer.config.trainer.v1.trainer_mode == "sync"
    assert trainer.config.actor_rollout_ref.hdpo.topk == 64


@pytest.mark.parametrize("mode", ["auto", "resume_path"])
def test_the_history_is_loaded_from_the_checkpoint_that_is_resumed(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("here" if mode == "auto" else "elsewhere") / "global_step_7"
    history = History(CollapseMonitor(0.5, solved=3.0, rollouts=9.0, best=0.9, collapsed=True))
    history.cliffs, history.rows = CliffHistory({"a"}, {"a", "b"}), 5
    history.save(str(folder))
    settings = {"default_local_dir": str(tmp_path / "here"), "resume_mode": mode, "resume_from_path": f"{folder}/"}
    trainer = SimpleNamespace(
        config=SimpleNamespace(trainer=DictConfig(settings)),
        global_steps=7,
        history=History(CollapseMonitor(0.5)),
        train_dataset=range(5),
        hdpo=check_config(composed()),
        waiting=WaitingCliffs(),
    )
    monkeypatch.setattr("verl.trainer.ppo.v1.trainer_base.PPOTrainer._load_checkpoint", lambda self: None)
    instance = HDPOTrainerSync.__new__(HDPOTrainerSync)
    vars(instance).update(vars(trainer))
    instance._load_checkpoint()
    assert instance.history == history
    assert instance.resumed_step == (7 if mode == "auto" else 0)  # only a folder of its own may it delete from
