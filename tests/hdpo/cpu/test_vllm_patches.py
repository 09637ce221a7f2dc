"""vLLM's processes on a CPU: what the plug-in changes, in vLLM's own modules."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from vllm.distributed.device_communicators import shm_broadcast
from vllm.model_executor.layers import utils
from vllm.model_executor.models import utils as models

from recipe.hdpo.cpu import vllm_patches
from tests.hdpo.composed_config import CONFIG
from tests.hdpo.training.fsdp_ranks import make_chat_model

PROCESSES = "VLLM_ENABLE_V1_MULTIPROCESSING"
STOCK = shm_broadcast.sched_yield, utils.dispatch_cpu_unquantized_gemm


@pytest.fixture(autouse=True)
def stock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Set first, so that it is as before afterwards.
    monkeypatch.setenv(PROCESSES, "1")
    monkeypatch.delenv(PROCESSES)
    monkeypatch.setattr(shm_broadcast, "sched_yield", STOCK[0])
    monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", STOCK[1])
    if hasattr(models.WeightsMapper, "get_unstacked_mapper"):
        monkeypatch.delattr(models.WeightsMapper, "get_unstacked_mapper")
    yield
    if hasattr(models.WeightsMapper, "get_unstacked_mapper"):
        del models.WeightsMapper.get_unstacked_mapper


def looks_while_waiting(monkeypatch: pytest.MonkeyPatch, seconds: float) -> tuple[int, list[str]]:
    """How often a reader of vLLM's message queue gave up its core while it waited, and what it read."""
    looks = 0
    pause = shm_broadcast.sched_yield

    def counted() -> None:
        nonlocal looks
        looks += 1
        pause()

    monkeypatch.setattr(shm_broadcast, "sched_yield", counted)
    writer = shm_broadcast.MessageQueue(1, 1)
    reader = shm_broadcast.MessageQueue.create_from_handle(writer.export_handle(), 0)
    ready = threading.Thread(target=reader.wait_until_ready)
    ready.start()
    writer.wait_until_ready()
    ready.join()

    def write() -> None:
        time.sleep(seconds)
        for message in ("first", "second"):
            writer.enqueue(message)

    thread = threading.Thread(target=write)
    thread.start()
    read = [reader.dequeue(timeout=60) for _ in range(2)]
    thread.join()
    return looks, read


def test_a_process_that_waits_for_a_message_pauses_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause is shorter than asked for, so their number is bounded on any machine."""
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    vllm_patches.register()
    begin = time.monotonic()
    looks, read = looks_while_waiting(monkeypatch, seconds=0.3)
    assert read == ["first", "second"]
    assert 0 < looks <= (time.monotonic() - begin) / vllm_patches.PAUSE


def test_without_the_cpu_platform_nothing_of_vllm_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    vllm_patches.register()
    assert (shm_broadcast.sched_yield, utils.dispatch_cpu_unquantized_gemm) == STOCK
    assert not hasattr(models.WeightsMapper, "get_unstacked_mapper")
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    vllm_patches.register()
    assert shm_broadcast.sched_yield is not STOCK[0] and utils.dispatch_cpu_unquantized_gemm is not STOCK[1]


def test_verls_adapter_sync_asks_for_a_mapper_that_keeps_q_k_and_v_apart_and_gets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    vllm_patches.register()
    mapper = models.WeightsMapper(
        orig_to_new_prefix={"transformer.": "model."}, orig_to_new_stacked={".q_proj": (".qkv_proj", "q")}
    )
    adapter = mapper.get_unstacked_mapper()
    assert adapter.apply_list(["transformer.layers.0.self_attn.q_proj"]) == ["model.layers.0.self_attn.q_proj"]
    assert mapper.apply_list(["transformer.layers.0.self_attn.q_proj"]) != adapter.apply_list(
        ["transformer.layers.0.self_attn.q_proj"]
    )


def test_the_name_is_still_missing_in_vllm_and_still_called_by_verl() -> None:
    """Where this fails the third patch can go."""
    from verl.utils.vllm import utils as adapter_sync

    assert "def get_unstacked_mapper" not in inspect.getsource(models)
    assert ".get_unstacked_mapper()" in inspect.getsource(adapter_sync)


@pytest.mark.slow
def test_an_engine_of_one_rank_has_its_model_in_its_own_process_which_takes_both_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from vllm.engine.arg_utils import EngineArgs

    make_chat_model(tmp_path)
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    wanted = OmegaConf.load(CONFIG / "device/cpu.yaml").actor_rollout_ref.rollout.engine_kwargs.vllm

    def backend(**own: Any) -> Any:
        args = EngineArgs(model=str(tmp_path), dtype="float32", max_model_len=32, enforce_eager=True, **own)
        return args.create_engine_config().parallel_config.distributed_executor_backend

    vllm_patches.register()
    assert backend(**wanted) == "uni"
    monkeypatch.setenv(PROCESSES, "1")
    assert backend(**wanted) == "mp"
