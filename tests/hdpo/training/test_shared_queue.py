"""Two runs on one Ray cluster would share TransferQueue."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray
from transfer_queue import interface

from recipe.hdpo.training.shared_queue import refuse_shared_queue


def test_a_run_that_was_attached_to_anothers_queue_is_refused_and_leaves_that_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    actor = ray.ActorID.from_random()
    killed: list = []
    monkeypatch.setattr(interface, "_TQ_CONTROLLER", SimpleNamespace(_actor_id=actor))
    monkeypatch.setattr(interface, "_TQ_STORAGE", None)
    monkeypatch.setattr(interface, "_TQ_CLIENT", None)
    monkeypatch.setattr(interface.ray, "kill", killed.append)
    with pytest.raises(RuntimeError, match=f"Ray job {actor.job_id.hex()}.*Ray cluster of its own"):
        refuse_shared_queue()
    interface.close()  # what verl does next
    assert killed == []


@pytest.mark.parametrize("storage", [{}, {"SimpleStorage": {}}])
def test_the_run_that_made_the_queue_goes_on_and_closes_it(monkeypatch: pytest.MonkeyPatch, storage: dict) -> None:
    killed: list = []
    monkeypatch.setattr(interface, "_TQ_CONTROLLER", "its own")
    monkeypatch.setattr(interface, "_TQ_STORAGE", storage)
    monkeypatch.setattr(interface, "_TQ_CLIENT", None)
    monkeypatch.setattr(interface.ray, "kill", killed.append)
    monkeypatch.setattr(interface.ray, "get", lambda refs, timeout: refs)
    refuse_shared_queue()
    interface.close()
    assert killed == ["its own"]
