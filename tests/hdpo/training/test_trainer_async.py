"""HDPO's asynchronous trainers: what they take, count and start; verl's own step methods are stand-ins here."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from transfer_queue import KVBatchMeta
from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import get_trainer_cls, trainer_separate_async
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.workers.engine_workers import ActorRolloutRefWorker

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.config.checks import check_config
from recipe.hdpo.tracking.kept_notes import KeptNotes
from recipe.hdpo.tracking.run_history import History
from recipe.hdpo.tracking.teacher_collapse import CollapseMonitor
from recipe.hdpo.training import arrivals as arrivals_module
from recipe.hdpo.training import trainer as trainer_module
from recipe.hdpo.training.arrivals import Arrivals
from recipe.hdpo.training.trainer import HDPOTrainer
from recipe.hdpo.training.trainer_async import (
    HDPODetachWorker,
    HDPOTrainerAsync,
    HDPOTrainerColocateAsync,
    HDPOTrainerSeparateAsync,
)
from recipe.hdpo.training.trainer_sync import HDPOTrainerSync
from recipe.hdpo.training.worker import HDPOWorker
from tests.hdpo.composed_config import composed
from tests.hdpo.training.test_arrivals import Queue, buffer_of

TRAINERS: dict[str, type[HDPOTrainer]] = {
    "hdpo_colocate_async": HDPOTrainerColocateAsync,
    "hdpo_separate_async": HDPOTrainerSeparateAsync,
}
NO_EVICTION = {"hdpo/lost_rollouts": 0, "hdpo/unscored_rollouts": 0, "hdpo/evicted_cliffs": 0}


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    for module in (arrivals_module, trainer_module):
        monkeypatch.setattr(module, "tq", queue)
    return queue


def make_trainer(kind: type[HDPOTrainerAsync], step: int, *overrides: str) -> HDPOTrainerAsync:
    trainer = kind.__new__(kind)
    config = composed(f"trainer.v1.trainer_mode=hdpo_{kind.base_mode}", *overrides)
    trainer.config, trainer.hdpo, trainer.global_steps = config, check_config(config), step
    trainer.history, trainer.arrivals = History(CollapseMonitor(0.5)), Arrivals(7)
    trainer.evictions = buffer_of(0.5)[1]
    trainer.records, trainer.kept_lines, trainer.kept, trainer.recorded = [], [], None, ()
    trainer.notes = KeptNotes(trainer.hdpo.privileged.gate.reliance)
    trainer.local_trigger_step, trainer.parameter_sync_step, trainer.total_training_steps = 0, 1, 100
    return trainer


def batch_of(queue: Queue, *uids: str, cliffs: str = "") -> KVBatchMeta:
    """verl's groups as its buffer hands them on: it has cleared the prompts' own keys."""
    for uid in uids:
        queue.add_group(uid, 1, cliff=uid in cliffs)
        del queue.tags[transfer.TRAIN][uid]
    tags = {k: t for k, t in queue.tags[transfer.TRAIN].items() if k.split("_")[0] in uids}
    return KVBatchMeta([*tags], [*tags.values()], transfer.TRAIN, extra_info={})


@pytest.mark.parametrize("name", TRAINERS)
def test_each_trainer_is_registered_and_is_verls_of_that_name(name: str) -> None:
    assert get_trainer_cls(name) is TRAINERS[name]
    assert issubclass(TRAINERS[name], get_trainer_cls(name.removeprefix("hdpo_")))
    assert TRAINERS[name].base_mode == name.removeprefix("hdpo_")


def test_rows_that_have_arrived_join_the_batch_at_hand_and_are_named_to_the_actor_with_their_partition(
    monkeypatch: pytest.MonkeyPatch, queue: Queue
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(PPOTrainer, "_balance_batch", lambda self, batch, metrics, **_: batch)
    monkeypatch.setattr(PPOTrainer, "_update_actor", lambda self, batch, metrics: seen.update(batch.extra_info))
    queue.add_cliff("x", "finished", 4, 5)
    queue.add_cliff("y", "running", 5)
    trainer = make_trainer(HDPOTrainerColocateAsync, 6)
    metrics: dict[str, float] = {}
    batch = trainer._balance_batch(batch_of(queue, "a", "b", cliffs="ab"), metrics)
    assert sorted(batch.keys) == [f"{uid}_{i}_0" for uid in "ab" for i in range(4)]
    trainer._update_actor(batch, metrics)
    assert seen[transfer.KEPT] == transfer.KeptRows(["x_8_0", "x_9_0"], [13, 13], partition=transfer.CLIFFS)
    assert not any(key.endswith("_hdpo_0") for tags in queue.tags.values() for key in tags)
    expected = {"cliffs": 2, "cliff_rate": 1.0, "reissued_cliffs": 1, "running_cliffs": 1, "kept_trajectories": 2}
    expected |= {"privileged_rollouts": 2, "kept_staleness_mean": 0.5, "kept_staleness_max": 1, "kept_too_stale": 0}
    assert {name: metrics[f"hdpo/{name}"] for name in expected} == expected


@pytest.mark.parametrize("cliffs", ["", "a", "ab"])
def test_a_batch_without_arrivals_is_grpos_whatever_its_cliffs_and_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch, queue: Queue, cliffs: str
) -> None:
    monkeypatch.setattr(PPOTrainer, "_balance_batch", lambda self, batch, metrics, **_: batch)
    trainer = make_trainer(HDPOTrainerColocateAsync, 2)
    metrics: dict[str, float] = {}
    trainer._balance_batch(batch_of(queue, "a", "b", cliffs=cliffs), metrics)
    assert trainer.kept is not None and trainer.kept.keys == []
    assert metrics["hdpo/cliff_rate"] == len(cliffs) / 2 and metrics["hdpo/privileged_rollouts"] == 0
    assert not {"hdpo/timing_s/privileged_wait", "hdpo/waiting_cliffs", "hdpo/kept_staleness_mean"} & metrics.keys()
    assert NO_EVICTION.items() <= metrics.items()


def test_counts_of_a_step_with_several_updates_are_sums_and_rates_have_the_whole_steps_denominator(
    monkeypatch: pytest.MonkeyPatch, queue: Queue
) -> None:
    """Two updates of two groups: 3 cliffs of 4, one re-issued cliff in each, one of them kept nothing."""
    parts = iter([("a", "b", "ab", (5, 5)), ("c", "d", "c", ())])

    def step_once(self: HDPOTrainerAsync, metrics: dict, timing: dict, size: int) -> KVBatchMeta:
        first, second, cliffs, versions = next(parts)
        queue.add_cliff(f"x{first}", "finished", *versions)
        metrics["verls"] = 1.0 if first == "a" else 2.0
        return self._balance_batch(batch_of(queue, first, second, cliffs=cliffs), metrics)

    monkeypatch.setattr(PPOTrainer, "prepare_step", lambda self: {})
    monkeypatch.setattr(PPOTrainer, "_step_once", step_once)
    monkeypatch.setattr(PPOTrainer, "_balance_batch", lambda self, batch, metrics, **_: batch)
    trainer = make_trainer(HDPOTrainerSeparateAsync, 6, "data.train_batch_size=4")
    trainer.parameter_sync_step, trainer.current_mode = 2, trainer_separate_async.HybridEngineMode.TRAINER
    metrics: dict[str, float] = {}
    batch = trainer.step(metrics, {})
    assert len(batch.keys) == 16 and metrics["verls"] == 1.5
    expected = {"cliffs": 3, "cliff_rate": 0.75, "reissued_cliffs": 2, "privileged_rollouts": 4, "kept_trajectories": 2}
    expected |= {"privileged_solve_rate": 0.5, "kept_tokens": 10, "kept_staleness_mean": 0.0}
    assert {name: metrics[f"hdpo/{name}"] for name in expected} == expected
    assert queue.tags[transfer.CLIFFS] == {} and trainer.records == []


def test_what_verl_evicts_for_a_lost_rollout_counts_as_lost_in_the_steps_metrics(queue: Queue) -> None:
    trainer = make_trainer(HDPOTrainerColocateAsync, 2)
    trainer.evictions.failed = [GroupRecord("p", False, False, lost_rollouts=2, unscored=1, size=4)]
    metrics = trainer._step_metrics()
    assert (metrics["hdpo/lost_rollouts"], metrics["hdpo/unscored_rollouts"]) == (2, 1)


def test_a_resumed_run_re_issues_its_prompts_under_way_and_its_cliffs_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {transfer.TRAIN: 5, transfer.CLIFFS: 3}
    monkeypatch.setattr(PPOTrainer, "_reissue_inflight_prompts", lambda self, partition_id: found.pop(partition_id))
    assert make_trainer(HDPOTrainerColocateAsync, 4)._reissue_inflight_prompts() == 8 and found == {}


def test_prompts_that_fill_the_window_before_the_first_step_are_no_refills() -> None:
    assert HDPOTrainerSync._add_prompts_to_generate is not PPOTrainer._add_prompts_to_generate
    for kind in TRAINERS.values():
        assert kind._add_prompts_to_generate is PPOTrainer._add_prompts_to_generate


def test_the_knobs_of_age_and_lost_groups_reach_what_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(self: PPOTrainer, config: object) -> None:
        self.config, self.replay_buffer = config, buffer_of(1.0)[0]

    monkeypatch.setattr(PPOTrainer, "__init__", init)
    knobs = ("hdpo.max_staleness=2", "hdpo.max_lost_rollouts=0.25", "data.train_batch_size=8")
    trainer = HDPOTrainerColocateAsync(composed("trainer.v1.trainer_mode=hdpo_colocate_async", *knobs))
    assert trainer.config.trainer.v1.trainer_mode == "colocate_async"
    assert trainer.arrivals.max_staleness == 2
    assert (trainer.evictions.asked, trainer.evictions.most) == (8, 0.25)


@pytest.mark.parametrize("hybrid", [True, False])
@pytest.mark.parametrize("teacher", ["drifting", "frozen"])
def test_the_separate_trainers_worker_is_hdpos_and_can_put_older_weights_into_place(hybrid: bool, teacher: str) -> None:
    trainer = make_trainer(HDPOTrainerSeparateAsync, 1)
    trainer.hdpo = check_config(composed(f"hdpo.teacher={teacher}"))
    trainer._enable_hybrid_replicas = hybrid
    trainer._init_resource_pool_mgr()
    expected = Role.Actor if not hybrid else Role.ActorRolloutRef if teacher == "frozen" else Role.ActorRollout
    [(role, worker)] = trainer.role_worker_mapping.items()
    kind = worker.__ray_metadata__.modified_class
    assert role is expected and trainer.mapping[role] == "global_pool"
    assert issubclass(kind, HDPOWorker) and issubclass(kind, DetachActorWorker)
    assert HDPODetachWorker.init_model is HDPOWorker.init_model
    assert HDPODetachWorker.restore_model_from_cpu is DetachActorWorker.restore_model_from_cpu


def test_a_reference_model_for_a_kl_term_stays_verls_where_it_has_workers_of_its_own() -> None:
    trainer = make_trainer(HDPOTrainerSeparateAsync, 1, "actor_rollout_ref.actor.use_kl_loss=true")
    trainer._enable_hybrid_replicas = False
    trainer._init_resource_pool_mgr()
    kinds = {role: worker.__ray_metadata__.modified_class for role, worker in trainer.role_worker_mapping.items()}
    assert set(kinds) == {Role.Actor, Role.RefPolicy}
    assert issubclass(kinds[Role.Actor], HDPOWorker) and not issubclass(kinds[Role.RefPolicy], HDPOWorker)
    assert issubclass(kinds[Role.RefPolicy], ActorRolloutRefWorker)


def test_verls_line_that_asks_for_a_flush_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TypeError):
        logging.getLogger("plain").warning("%d replicas", 2, flush=True)  # type: ignore[call-arg]
    with caplog.at_level(logging.INFO):
        trainer_separate_async.logger.info("%d replicas", 2, flush=True)
        trainer_separate_async.logger.warning("plain")
    assert caplog.messages == ["2 replicas", "plain"]


def test_the_watchdog_knows_the_engines_that_are_apart_from_training() -> None:
    from recipe.hdpo.training.watchdog import actors_of

    def manager(name: str) -> Any:
        replica = SimpleNamespace(servers=[f"server of {name}"])
        return SimpleNamespace(get_replicas=lambda: [replica], global_load_balancer=f"balancer of {name}")

    trainer = SimpleNamespace(llm_server_manager=manager("hybrid"), standalone_server_manager=manager("standalone"))
    found = {str(handle) for handle in actors_of(trainer).values()}
    assert {f"{what} of {name}" for what in ("server", "balancer") for name in ("hybrid", "standalone")} <= found
