"""vLLM's processes on a CPU: what the plug-in changes, on vLLM's own classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq
from vllm.distributed.device_communicators import shm_broadcast
from vllm.model_executor.layers import utils

from recipe.hdpo.cpu import vllm_patches


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> shm_broadcast.SpinCondition:
    """A reader that has just read, with its writer; yielding to the scheduler, as one does who spins, is an error."""

    def spins() -> None:
        raise AssertionError("spins")

    context, address = zmq.Context(), f"ipc://{tmp_path}/notify"
    monkeypatch.setattr(shm_broadcast.SpinCondition, "wait", shm_broadcast.SpinCondition.wait)
    monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", utils.dispatch_cpu_unquantized_gemm)
    monkeypatch.setattr(shm_broadcast, "sched_yield", spins)
    writer = shm_broadcast.SpinCondition(False, context, address)
    condition = shm_broadcast.SpinCondition(True, context, address)
    condition.writer = writer
    condition.record_read()
    yield condition
    context.destroy(linger=0)


def test_a_process_that_waits_for_a_message_spins_in_stock_vllm_and_sleeps_here(
    reader: shm_broadcast.SpinCondition, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match="spins"):
        reader.wait(timeout_ms=1)
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    vllm_patches.register()
    vllm_patches.register()
    reader.record_read()
    reader.wait(timeout_ms=1)


def test_a_message_that_came_before_the_wait_ends_it_at_once(
    reader: shm_broadcast.SpinCondition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look at the buffer and the wait nothing is lost: the socket keeps the last notification."""
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    vllm_patches.register()
    while not reader.local_notify_socket.poll(10):  # until the writer knows of its reader
        reader.writer.notify()
    reader.record_read()
    reader.wait(timeout_ms=None)


def test_without_the_cpu_platform_nothing_of_vllm_is_changed(
    reader: shm_broadcast.SpinCondition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    before = shm_broadcast.SpinCondition.wait
    vllm_patches.register()
    assert shm_broadcast.SpinCondition.wait is before
