"""Ends a run that can go on no more: a process of it has died, or nothing at all has moved for a long time.

verl waits without a limit for what its actors send. A dead agent-loop worker leaves the replay buffer waiting for rows,
and a dead engine leaves the actor waiting for the answer to its weights. So a thread beside the trainer looks at all
actors every few seconds, and at what the trainer has got done.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayActorError
from transfer_queue import interface

logger = logging.getLogger(__name__)

LOOK_EVERY = 5.0
# How long a stopped run may take to leave; then its process is ended.
LEAVE_WITHIN = 60.0


class RunStopped(RuntimeError):
    """The run cannot go on. The message says what died or hung, and from which checkpoint to go on."""


def engine_failure(server: Any) -> str | None:
    """Run in an engine's server: whether the engine, a process of its own, is dead. Engines that do not say are not."""
    return "its engine process has died" if getattr(getattr(server, "engine", None), "errored", False) else None


def actors_of(trainer: Any) -> dict[str, ActorHandle]:
    """The Ray actors that a trainer has started so far, each under a name for people."""
    found: dict[str, ActorHandle] = {}

    def add(name: str, handles: Any) -> None:
        found.update({f"{name} {i}": handle for i, handle in enumerate(handles or [])})

    for name, group in (("actor", "actor_rollout_wg"), ("reference", "ref_policy_wg"), ("critic", "critic_wg")):
        add(f"{name} rank", getattr(getattr(trainer, group, None), "workers", None))
    managers = [getattr(trainer, f"{name}_manager", None) for name in ("llm_server", "standalone_server")]
    replicas = [replica for manager in managers if manager is not None for replica in manager.get_replicas()]
    add("engine server", [server for replica in replicas for server in replica.servers])
    balancers = [getattr(manager, "global_load_balancer", None) for manager in managers]
    add("load balancer of the engines", [handle for handle in balancers if handle is not None])
    rewards = getattr(trainer, "reward_loop_manager", None)
    add("reward worker", getattr(rewards, "reward_loop_workers", None))
    models = getattr(rewards, "reward_model_manager", None)
    add("engine server of the reward model", getattr(models, "server_handles", None))
    add("agent-loop worker", getattr(getattr(trainer, "agent_loop_manager", None), "agent_loop_workers", None))
    queue: Any = interface
    add("TransferQueue's controller", [h for h in [queue._TQ_CONTROLLER] if h is not None])
    storage = (queue._TQ_STORAGE or {}).get("SimpleStorage")
    add("TransferQueue's storage unit", storage.values() if storage else None)
    return found


def progress_of(trainer: Any) -> Hashable:
    """What changes as verl's trainer gets on: its parts while it starts, then the step and the phases that ended."""
    # Of a step with several updates, phases of one name add up: their sums tell that one more has ended.
    timing = dict(getattr(trainer, "timing_raw", {}))
    phases = ", ".join(f"{name} ({seconds:.1f} s)" for name, seconds in timing.items())
    step = f"step {getattr(trainer, 'global_steps', 0)}, update {getattr(trainer, 'local_trigger_step', 0)}"
    return f"{step}, phases ended: {phases or 'none'}; parts: {len(vars(trainer))}"


class ActorWatch:
    """Asks every actor whether it is there, once at a time: a busy one answers late, a dead one fails at once."""

    def __init__(self, actors: Callable[[], dict[str, ActorHandle]]) -> None:
        self.actors = actors
        self.asked: dict[str, Any] = {}

    def dead(self) -> str | None:
        """Which actor is dead, and why; None where none is known to be."""
        for name, handle in self.actors().items():
            # A load balancer of the user's own need not be an actor.
            if name not in self.asked and hasattr(handle, "__ray_ready__"):
                ask = handle.__ray_call__.remote(engine_failure) if name.startswith("engine") else None
                self.asked[name] = handle.__ray_ready__.remote() if ask is None else ask
        done, _ = (
            ray.wait(list(self.asked.values()), num_returns=len(self.asked), timeout=0) if self.asked else ([], [])
        )
        for name in [name for name, answer in self.asked.items() if answer in done]:
            try:
                failure = ray.get(self.asked.pop(name))
            except ActorDiedError as error:
                return f"{name} has died: {' '.join(str(error).split())}"
            except RayActorError:  # out of reach for now; it is asked again
                continue
            if isinstance(failure, str):
                return f"{name}: {failure}"
        return None


class Watchdog:
    """Runs everything that verl waits in, with a thread beside it.

    Args:
        stall_timeout: seconds without any progress after which the run ends; 0: never.
        dead: which process is dead, see :meth:`ActorWatch.dead`.
        progress: anything that changes when the run gets on.
        last_whole: the line of the message that names the last whole checkpoint.
        clock: seconds.
    """

    def __init__(
        self,
        stall_timeout: float,
        dead: Callable[[], str | None],
        progress: Callable[[], Hashable],
        last_whole: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stall_timeout = stall_timeout
        self.dead, self.progress, self.last_whole, self.clock = dead, progress, last_whole, clock
        self.rows: Hashable = None
        self.reason: str | None = None
        self._seen: Hashable = None
        self._since = clock()
        self._lock, self._left = threading.Lock(), threading.Event()

    def watch_rows(self, buffer: Any) -> None:
        """Take note, whenever verl's replay buffer has looked for rows, of how many there are."""
        wait = buffer._wait_for_next_poll

        def noting(partition_id: str, last_debug_time: float) -> float:
            groups = buffer.finished_keys[partition_id] | buffer.failure_keys[partition_id]
            self.rows = (partition_id, len(buffer.partitions[partition_id]), len(groups))
            return wait(partition_id, last_debug_time)

        buffer._wait_for_next_poll = noting

    def look(self) -> str | None:
        """One look: why the run has to end, or None."""
        seen = (self.progress(), self.rows)
        if seen != self._seen:
            self._seen, self._since = seen, self.clock()
        found = self.dead()
        still = self.clock() - self._since
        if found is None and 0 < self.stall_timeout < still:
            found = (
                f"nothing has moved for {still:.0f} s (hdpo.stall_timeout={self.stall_timeout:g}): no row arrived and "
                f"no phase ended. {self._where()}"
            )
        return found

    def _where(self) -> str:
        return f"Last seen: {self.progress()}; rows (partition, rows, groups that ended): {self.rows}"

    def run(self, work: Callable[[], None]) -> None:
        """Do what verl waits in, and watch it.

        Raises:
            RunStopped: something died, or nothing moved. Other errors of the work come through as they are.
        """
        self._left.clear()
        self._since = self.clock()
        self._in_main = threading.current_thread() is threading.main_thread()
        # A real signal ends every wait of the main thread, in Ray's C++ too, which knows KeyboardInterrupt only.
        before = signal.signal(signal.SIGUSR2, _interrupt) if self._in_main else None
        try:
            try:
                threading.Thread(target=self._watch, name="hdpo-watchdog", daemon=True).start()
                work()
            finally:
                with self._lock:
                    self._left.set()
        except BaseException as error:
            self._left.set()  # where the signal came at the lock
            if self.reason is None and isinstance(error, RayActorError):
                self.reason = " ".join(str(error).split())
            if self.reason is None:
                raise
            raise RunStopped(self._message()) from error
        finally:
            if self._in_main:
                signal.signal(signal.SIGUSR2, before or signal.SIG_DFL)

    def _message(self) -> str:
        return f"the run cannot go on: {self.reason}. {self.last_whole()}"

    def _watch(self) -> None:
        while not self._left.wait(LOOK_EVERY):
            try:
                found = self.look()
            except Exception:
                logger.exception("the watchdog could not look at the run, and looks again")
                continue
            if found is not None:
                self._stop(found)
                return

    def _stop(self, found: str) -> None:
        with self._lock:
            if self._left.is_set():
                return
            self.reason = found
            main = threading.main_thread().ident
            if self._in_main and main is not None:
                signal.pthread_kill(main, signal.SIGUSR2)
        logger.error(self._message())
        # The main thread leaves by an exception, which the driver prints. Where it hangs in something that no signal
        # reaches, or in verl's own clean-up, the process ends all the same: no run goes on after this.
        time.sleep(LEAVE_WITHIN)
        os._exit(1)


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt
