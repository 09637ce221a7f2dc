"""One run at a time on TransferQueue's actors, whose names and Ray namespace are fixed."""

from __future__ import annotations

from typing import Any

from transfer_queue import interface


def refuse_shared_queue() -> None:
    """Stop a run whose TransferQueue belongs to another run: each would see the other's rows.

    A second run on a Ray cluster is attached to the first one's queue. The storage units are known to the process alone
    that made them.

    Raises:
        RuntimeError: names the Ray job of the other run, whose queue is left as it is.
    """
    queue: Any = interface
    controller = queue._TQ_CONTROLLER
    if controller is None or queue._TQ_STORAGE is not None:
        return
    # verl closes TransferQueue when a run ends, this one too, and that would kill the other's controller.
    queue._TQ_CONTROLLER = None
    raise RuntimeError(
        f"another run (Ray job {controller._actor_id.job_id.hex()}) uses TransferQueue on this Ray cluster, and its "
        "actors have fixed names, so the two would train on each other's rows: wait until it has ended, or start this "
        "run on a Ray cluster of its own"
    )
