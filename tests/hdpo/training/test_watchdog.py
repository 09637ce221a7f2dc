"""Dead processes and runs in which nothing moves. The real ones are killed in tests/drills."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError
from transfer_queue import interface

from recipe.hdpo.training import watchdog
from recipe.hdpo.training.watchdog import ActorWatch, RunStopped, Watchdog, actors_of, engine_failure, progress_of


class _Answers:
    """Ray, as far as the watch needs it: an answer is ready unless it is None; an exception is raised."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def handle(self, name: str, answers: list) -> Any:
        def ask(*_: object) -> list:
            self.asked.append(name)
            return [answers.pop(0)]

        method = SimpleNamespace(remote=ask)
        return SimpleNamespace(__ray_ready__=method, __ray_call__=method)

    def wait(self, refs: list, num_returns: int, timeout: float) -> tuple[list, list]:
        assert num_returns == len(refs) and timeout == 0
        return [ref for ref in refs if ref[0] is not None], []

    def get(self, ref: list) -> object:
        if isinstance(ref[0], Exception):
            raise ref[0]
        return ref[0]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> _Answers:
    answers = _Answers()
    monkeypatch.setattr(watchdog, "ray", answers)
    return answers


def test_a_busy_actor_is_asked_once_and_a_dead_one_is_named_with_rays_reason(answers: _Answers) -> None:
    dead = ActorDiedError(None)
    handles = {
        "actor rank 0": answers.handle("busy", [None]),
        "reward worker 0": answers.handle("away", [ActorUnavailableError("", b"1" * 16), True, None]),
        "agent-loop worker 1": answers.handle("dies", [True, True, dead]),
    }
    watch = ActorWatch(lambda: handles)
    assert [watch.dead(), watch.dead()] == [None, None]
    assert watch.dead() == f"agent-loop worker 1 has died: {' '.join(str(dead).split())}"
    assert answers.asked == ["busy", "away", "dies", "away", "dies", "away", "dies"]


def test_an_engine_server_that_lives_answers_for_its_engine(answers: _Answers) -> None:
    failure = engine_failure(SimpleNamespace(engine=SimpleNamespace(errored=True)))
    handles = {"balancer": object(), "engine server 0": answers.handle("server", ["x"])}
    assert ActorWatch(lambda: handles).dead() == "engine server 0: x"
    assert failure == "its engine process has died"
    assert engine_failure(SimpleNamespace(engine=SimpleNamespace(errored=False))) is None
    assert engine_failure(SimpleNamespace()) is None  # SGLang's, and the servers of other nodes


def test_every_actor_that_verls_trainer_starts_is_watched_as_soon_as_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interface, "_TQ_CONTROLLER", None)
    monkeypatch.setattr(interface, "_TQ_STORAGE", None)
    trainer = SimpleNamespace()
    assert actors_of(trainer) == {}
    trainer.actor_rollout_wg = SimpleNamespace(workers=["a", "b"])
    trainer.ref_policy_wg = trainer.actor_rollout_wg
    replicas = [SimpleNamespace(servers=["s"]), SimpleNamespace(servers=["t"])]
    trainer.llm_server_manager = SimpleNamespace(get_replicas=lambda: replicas, global_load_balancer="l")
    trainer.reward_loop_manager = SimpleNamespace(
        reward_loop_workers=["r"], reward_model_manager=SimpleNamespace(server_handles=["m"])
    )
    trainer.agent_loop_manager = SimpleNamespace(agent_loop_workers=["w"])
    monkeypatch.setattr(interface, "_TQ_CONTROLLER", "c")
    monkeypatch.setattr(interface, "_TQ_STORAGE", {"SimpleStorage": {"0": "u"}})
    assert sorted(map(str, actors_of(trainer).values())) == sorted("ababstlrmwcu")
    names = {"engine server 1", "engine server of the reward model 0", "agent-loop worker 0", "actor rank 1"}
    assert names <= actors_of(trainer).keys()


def dog(
    stall: float = 0.0, dead: Any = lambda: None, progress: Any = lambda: 0, clock: Any = time.monotonic
) -> Watchdog:
    return Watchdog(stall, dead, progress, lambda: "LAST WHOLE", clock)


def test_a_run_is_stalled_once_nothing_has_changed_for_longer_than_the_limit() -> None:
    now, done = [0.0], [0]
    found = dog(100.0, progress=lambda: done[0], clock=lambda: now[0])
    for now[0], done[0], expected in [(90.0, 1, False), (190.0, 1, False), (191.0, 2, False), (292.0, 2, True)]:
        reason = found.look()
        assert (reason is not None) is expected, now
    assert "nothing has moved for 101 s (hdpo.stall_timeout=100)" in reason
    never = dog(0.0, clock=lambda: now[0])
    now[0] = 1e9
    assert never.look() is None


def test_a_row_a_phase_a_step_and_a_part_of_the_start_are_progress() -> None:
    buffer = SimpleNamespace(
        partitions=defaultdict(dict), finished_keys=defaultdict(set), failure_keys=defaultdict(set)
    )
    buffer._wait_for_next_poll = lambda partition_id, last: last + 1
    found, seen = dog(), []
    found.watch_rows(buffer)
    for rows, ended in ((0, 0), (1, 0), (2, 0), (2, 1)):
        buffer.partitions["train"] = dict.fromkeys(range(rows))
        buffer.failure_keys["train"] = set(range(ended))
        assert buffer._wait_for_next_poll("train", 5.0) == 6.0
        seen.append(found.rows)
    assert len(set(seen)) == 4
    trainer, seen = SimpleNamespace(), []
    changes: list[dict[str, Any]] = [{}, {"tokenizer": 1}, {"global_steps": 1}, {"timing_raw": {"gen": 1.0}}]
    # Of an asynchronous step with several updates: a phase of the same name, and the next update.
    changes += [{"timing_raw": {"gen": 1.5}}, {"local_trigger_step": 1}, {"global_steps": 2}]
    for change in changes:
        vars(trainer).update(change)
        seen.append(progress_of(trainer))
    assert len(set(seen)) == len(changes)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the process would have been ended."""
    event = threading.Event()
    monkeypatch.setattr(watchdog, "LOOK_EVERY", 0.001)
    monkeypatch.setattr(watchdog, "LEAVE_WITHIN", 0.001)
    monkeypatch.setattr(os, "_exit", lambda code: event.set() if code == 1 else None)
    return event


def wait_for_ever() -> None:
    threading.Event().wait()


def test_a_waiting_main_thread_leaves_with_the_reason_and_then_the_process_ends(ended: threading.Event) -> None:
    before = signal.getsignal(signal.SIGUSR2)
    with pytest.raises(RunStopped, match=r"the run cannot go on: worker 3 has died\. LAST WHOLE"):
        dog(dead=lambda: "worker 3 has died").run(wait_for_ever)
    assert ended.wait(60)
    assert signal.getsignal(signal.SIGUSR2) == before


def test_a_look_that_fails_is_logged_and_the_next_one_counts(
    ended: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    looks = iter([OSError("Ray is away")])

    def dead() -> str:
        for error in looks:
            raise error
        return "gone"

    with pytest.raises(RunStopped, match="gone"):
        dog(dead=dead).run(wait_for_ever)
    assert "Ray is away" in caplog.text and ended.wait(60)


def fail(error: BaseException) -> None:
    raise error


def test_an_actor_that_verl_finds_dead_first_is_said_with_the_last_whole_checkpoint_and_other_errors_stay() -> None:
    with pytest.raises(RunStopped, match=r"actor died.*LAST WHOLE") as stopped:
        dog().run(lambda: fail(ActorDiedError(None)))
    assert isinstance(stopped.value.__cause__, ActorDiedError)
    for error in (KeyError("other"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            dog().run(lambda error=error: fail(error))
    done: list[str] = []
    dog().run(lambda: done.append("done"))
    assert done == ["done"]
