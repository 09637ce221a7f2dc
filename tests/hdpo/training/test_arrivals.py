"""Privileged rows of an asynchronous run: taken by id when they are done, bounded in age, evicted with no group."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBufferAsync

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.config.keys import max_staleness
from recipe.hdpo.training import arrivals as arrivals_module
from recipe.hdpo.training.arrivals import Arrivals
from recipe.hdpo.training.evictions import Evictions
from tests.hdpo.composed_config import composed


class Queue:
    """TransferQueue's tags by partition and key."""

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, dict[str, Any]]] = {transfer.TRAIN: {}, transfer.CLIFFS: {}}

    def kv_list(self, partition_id: str | None = None) -> dict[str, dict[str, dict[str, Any]]]:
        return self.tags if partition_id is None else {partition_id: self.tags[partition_id]}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        for key in keys:
            del self.tags[partition_id][key]

    def add_cliff(self, uid: str, status: str, *versions: int) -> None:
        """A cliff with J = 2 privileged rollouts, of which as many were kept as there are versions of the weights."""
        tags = self.tags[transfer.CLIFFS]
        tags[uid] = {**transfer.cliff_tag(1), "status": status}
        for j, version in enumerate(versions):
            tags[transfer.row_key(uid, 8 + j)] = transfer.privileged_tag(
                [1], [2, 3], [4] * 5, weights=version, source="answer"
            )
        if status == "finished":
            counts = dict(rollouts=2, solved_privileged=len(versions), kept=len(versions))
            record = GroupRecord(f"p{uid}", False, False, reissued=True, kept_tokens=5 * len(versions), **counts)
            record.count("answer", rollouts=2, solved=len(versions), kept=len(versions))
            tags[transfer.record_key(uid)] = transfer.record_tag(record)

    def add_group(self, uid: str, step: int, *, cliff: bool, lost: int = 0) -> None:
        """One of verl's groups of 4 rollouts."""
        tags = self.tags[transfer.TRAIN]
        status = "failure" if lost else "finished"
        tags[uid] = {"is_prompt": True, "status": status, "global_steps": step}
        tags |= {transfer.row_key(uid, i): {"status": "success", "seq_len": 3} for i in range(4 - lost)}
        error = dict(first_error=f"error of {uid}", first_error_at=float(step)) if lost else {}
        record = GroupRecord(f"p{uid}", cliff, not cliff, lost_rollouts=lost, size=4, unscored=lost, **error)
        tags[transfer.record_key(uid)] = transfer.record_tag(record)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    monkeypatch.setattr(arrivals_module, "tq", queue)
    monkeypatch.setattr("verl.trainer.ppo.v1.replay_buffer.tq", queue)
    return queue


@pytest.mark.parametrize("done", ["", "b", "abc"])
def test_rows_of_the_cliffs_that_are_done_are_taken_by_id_and_the_others_stay(queue: Queue, done: str) -> None:
    for uid in "abc":
        queue.add_cliff(uid, "finished" if uid in done else "running", 3)
    arrivals = Arrivals(None)
    kept, records = arrivals.take(5)
    assert kept == KVBatchMeta([f"{uid}_8_0" for uid in done], kept.tags, transfer.CLIFFS)
    assert {key: record.prompt_id for key, record in records.items()} == {f"{u}_hdpo_0": f"p{u}" for u in done}
    left = {key.split("_")[0] for key in queue.tags[transfer.CLIFFS]} - {key.split("_")[0] for key in kept.keys}
    assert left == set("abc") - set(done)
    # What was taken stays until it was trained on, and is taken once.
    assert {key for key in queue.tags[transfer.CLIFFS] if key.split("_")[0] in done} == set(kept.keys)
    assert arrivals.metrics()["hdpo/running_cliffs"] == 3 - len(done)
    assert arrivals.take(6)[0].keys == []


@pytest.mark.parametrize(("most", "taken"), [(None, [4, 3, 0]), (4, [4, 3, 0]), (3, [3, 0]), (0, [0])])
def test_a_kept_trajectory_may_be_so_many_versions_old_and_no_more(queue: Queue, most: int | None, taken: list) -> None:
    """At step 8 the weights at hand are version 7."""
    queue.add_cliff("a", "finished", 3, 7)
    queue.add_cliff("b", "finished", 4)
    arrivals = Arrivals(most)
    kept, records = arrivals.take(8)
    assert sorted((7 - tag["min_global_steps"] for tag in kept.tags), reverse=True) == taken
    assert sum(record.kept for record in records.values()) == len(taken)
    assert sum(record.kept_tokens for record in records.values()) == 5 * len(taken)
    assert sum(record.rollouts for record in records.values()) == 4
    metrics = arrivals.metrics()
    assert metrics["hdpo/kept_too_stale"] == 3 - len(taken)
    assert metrics["hdpo/kept_staleness_max"] == max(taken)
    assert metrics["hdpo/kept_staleness_mean"] == pytest.approx(sum(taken) / len(taken))
    assert set(queue.tags[transfer.CLIFFS]) == set(kept.keys)  # those that are too old are gone


def test_staleness_counts_over_all_updates_of_a_step_and_anew_in_the_next(queue: Queue) -> None:
    arrivals = Arrivals(1)
    for uid, version in (("a", 7), ("b", 6), ("c", 5)):
        queue.add_cliff(uid, "finished", version)
        arrivals.take(8)
    expected = {"kept_too_stale": 1, "running_cliffs": 0, "kept_staleness_mean": 0.5, "kept_staleness_max": 1}
    assert arrivals.metrics() == {f"hdpo/{name}": value for name, value in expected.items()}
    assert arrivals.metrics() == {"hdpo/kept_too_stale": 0, "hdpo/running_cliffs": 0}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), 7),
        (("trainer.v1.sampler.max_off_policy_threshold=1",), 0),
        (("trainer.v1.sampler.max_off_policy_threshold=null",), None),
        (("hdpo.max_staleness=2",), 2),
        (("hdpo.max_staleness=0", "trainer.v1.sampler.max_off_policy_threshold=null"), 0),
    ],
)
def test_the_bound_is_a_knob_and_verls_own_where_that_is_null(overrides: tuple, expected: int | None) -> None:
    config = composed(*overrides)
    assert max_staleness(config, config.hdpo.max_staleness) == expected


def buffer_of(most: float, asked: int = 4, strategy: str = "drop") -> tuple[ReplayBufferAsync, Evictions, list[int]]:
    """verl's own buffer, which may use groups of up to 2 versions, and how many prompts it asked for anew."""
    refills: list[int] = []
    sizes: dict[str, Any] = {"max_off_policy_threshold": 2, "max_off_policy_strategy": strategy, "sampler_kwargs": {}}
    buffer = ReplayBufferAsync("colocate_async", {}, refill_fn=refills.append, poll_interval=0.0, **sizes)
    return buffer, Evictions(buffer, asked, most), refills


def test_eviction_of_stale_groups_takes_no_privileged_row_and_says_how_many_cliffs_it_fell_on(queue: Queue) -> None:
    for uid, step, cliff in (("old", 1, True), ("older", 1, False), ("a", 4, True), ("b", 4, False)):
        queue.add_group(uid, step, cliff=cliff)
    queue.add_cliff("x", "finished", 1)  # the privileged rollouts of "old"
    buffer, evictions, refills = buffer_of(0.5)
    batch, found = buffer.sample(4, transfer.TRAIN, 2)
    assert found["training/off_policy/evicted_samples"] == 2 and refills == [2]
    assert {key.split("_")[0] for key in batch.keys} == {"a", "b"}
    assert evictions.metrics() == {"hdpo/lost_rollouts": 0, "hdpo/unscored_rollouts": 0, "hdpo/evicted_cliffs": 1}
    assert evictions.metrics()["hdpo/evicted_cliffs"] == 0
    assert Arrivals(7).take(4)[0].keys == ["x_8_0"]


def test_groups_that_lost_a_rollout_are_counted_before_verl_throws_them_away(queue: Queue) -> None:
    queue.add_group("a", 3, cliff=False)
    queue.add_group("b", 3, cliff=False, lost=1)
    queue.add_group("c", 3, cliff=False, lost=4)
    buffer, evictions, refills = buffer_of(0.5)
    batch, _ = buffer.sample(3, transfer.TRAIN, 1)
    assert {key.split("_")[0] for key in batch.keys} == {"a"} and refills == [2]
    assert evictions.metrics() == {"hdpo/lost_rollouts": 5, "hdpo/unscored_rollouts": 5, "hdpo/evicted_cliffs": 0}


@pytest.mark.parametrize("most", [0.0, 0.25])
def test_too_many_groups_that_fail_stop_the_run_with_the_first_error_where_verl_would_ask_for_ever(
    queue: Queue, most: float
) -> None:
    """Of 4 groups 0 or 1 may fail; one lost rollout in each is enough for verl to throw all of them away."""
    buffer, evictions, _ = buffer_of(most)
    for step, uid in ((3, "b"), (2, "c")):
        queue.add_group(uid, step, cliff=False, lost=1)
    with pytest.raises(RuntimeError, match=r"step 3: 2 groups lost a rollout.*beside 4.*first error was: error of c"):
        buffer.sample(3, transfer.TRAIN, 1)
    queue.tags[transfer.TRAIN].clear()
    queue.add_group("a", 3, cliff=False)
    evictions.metrics()
    assert len(buffer.sample(3, transfer.TRAIN, 1)[0].keys) == 5


def test_verls_buffer_counts_and_samples_nothing_of_the_cliffs_partition(queue: Queue) -> None:
    queue.add_group("a", 4, cliff=True)
    for uid, status in (("x", "finished"), ("y", "running")):
        queue.add_cliff(uid, status, 3)
    before = copy.deepcopy(queue.tags[transfer.CLIFFS])
    buffer, _, _ = buffer_of(0.5)
    assert buffer.get_sampleable_count(4, transfer.TRAIN) == 1
    batch, _ = buffer.sample(4, transfer.TRAIN, 1)
    assert {key.split("_")[0] for key in batch.keys} == {"a"}
    assert queue.tags[transfer.CLIFFS] == before


@pytest.mark.parametrize(("strategy", "taken"), [("drop", {"old", "new"}), ("wait", {"old", "slow"})])
def test_verl_takes_the_groups_that_finish_first_unless_it_waits_for_those_of_the_step_before(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, strategy: str, taken: set[str]
) -> None:
    """What docs/async.md says of batches: a slow group, so mostly a cliff, is put off by quick ones of a later step."""
    for uid, step in (("old", 1), ("slow", 1), ("new", 2), ("newer", 2)):
        queue.add_group(uid, step, cliff=uid == "slow")
    slow = queue.tags[transfer.TRAIN]["slow"]
    slow["status"] = "running"
    buffer, _, _ = buffer_of(0.5, strategy=strategy)

    def polled(partition_id: str, last_debug_time: float) -> float:
        slow["status"] = "finished"
        return last_debug_time

    monkeypatch.setattr(buffer, "_wait_for_next_poll", polled)
    batch, _ = buffer.sample(2, transfer.TRAIN, 2)
    found = {key.split("_")[0] for key in batch.keys}
    assert found == taken or (strategy == "drop" and found == {"old", "newer"})


def test_what_is_too_stale_is_no_kept_rollout_of_its_source_either(queue: Queue) -> None:
    queue.add_cliff("a", "finished", 1, 3)
    _, records = Arrivals(2).take(5)
    assert records["a_hdpo_0"].kept == 1
    assert records["a_hdpo_0"].by_source == {"answer": {"rollouts": 2, "solved": 2, "kept": 1}}
