"""Weights from training to rollouts through shared memory, as verl's manager of checkpoint engines calls it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from recipe.hdpo.cpu import checkpoint_engine
from recipe.hdpo.cpu.checkpoint_engine import SharedMemoryEngine


def weights(factor: float = 1.0) -> dict[str, torch.Tensor]:
    """Three names for one memory, as with tied weights, and another dtype."""
    table = factor * torch.arange(6.0).reshape(2, 3)
    return {"embed": table, "head": table, "turned": table.t(), "norm": torch.ones(1, dtype=torch.bfloat16)}


def engines(folder: Path, training: int, rollouts: int) -> tuple[list[SharedMemoryEngine], list[SharedMemoryEngine]]:
    made = [SharedMemoryEngine(bucket_size=1, is_master=i == 0, folder=str(folder)) for i in range(training + rollouts)]
    return made[:training], made[training:]


def connect(training: list[SharedMemoryEngine], rollouts: list[SharedMemoryEngine]) -> None:
    metadata = [engine.prepare() for engine in (*training, *rollouts)]
    for group, arguments in zip(
        (training, rollouts),
        SharedMemoryEngine.build_topology(len(training), len(rollouts), metadata),
        strict=True,
    ):
        assert all(len(values) == len(group) for values in arguments.values())
        for number, engine in enumerate(group):
            engine.init_process_group(**{name: values[number] for name, values in arguments.items()})


async def received(engine: SharedMemoryEngine) -> dict[str, torch.Tensor]:
    return {name: tensor async for name, tensor in engine.receive_weights(global_steps=1)}


@pytest.mark.parametrize(("training", "rollouts"), [(1, 1), (2, 1), (1, 3)])
def test_every_rollout_worker_gets_every_weight_whichever_side_begins(
    tmp_path: Path, training: int, rollouts: int
) -> None:
    senders, receivers = engines(tmp_path, training, rollouts)

    async def transfer(factor: float) -> list[dict[str, torch.Tensor]]:
        waiting = [asyncio.create_task(received(engine)) for engine in receivers]
        await asyncio.sleep(2 * checkpoint_engine.POLL)
        for sender in senders:
            assert await sender.send_weights(iter(weights(factor).items())) == {}
        return await asyncio.gather(*waiting)

    for factor in (1.0, 2.0):  # one sync after the other
        connect(senders, receivers)
        for found in asyncio.run(transfer(factor)):
            assert found.keys() == weights().keys()
            assert all(torch.equal(found[name], tensor) for name, tensor in weights(factor).items())
            assert all(found[name].dtype == tensor.dtype for name, tensor in weights().items())
        for engine in (*senders, *receivers):
            engine.finalize()
        assert not list(tmp_path.iterdir())


def test_every_rank_goes_through_the_weights_since_each_is_gathered_from_all(tmp_path: Path) -> None:
    senders, receivers = engines(tmp_path, 2, 1)
    connect(senders, receivers)
    seen: list[str] = []

    def gathered():
        for name, tensor in weights().items():
            seen.append(name)
            yield name, tensor

    asyncio.run(senders[1].send_weights(gathered()))
    assert seen == list(weights())
    [folder] = tmp_path.iterdir()
    assert not list(folder.iterdir())


def test_a_rollout_worker_gives_a_lost_sender_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_engine, "LIMIT", 0.0)
    senders, receivers = engines(tmp_path, 1, 1)
    connect(senders, receivers)
    with pytest.raises(TimeoutError, match="did a training process end"):
        asyncio.run(received(receivers[0]))


def test_verl_finds_it_by_the_two_settings_of_the_documents() -> None:
    from verl.checkpoint_engine import CheckpointEngineRegistry
    from verl.utils.import_utils import import_external_libs

    text = " ".join((Path(__file__).parents[3] / "docs/async.md").read_text().split())
    backend, module = (
        text.partition(f"checkpoint_engine.{key}=")[2].split()[0] for key in ("backend", "custom_backend_module")
    )
    import_external_libs(module)
    assert CheckpointEngineRegistry.get(backend) is SharedMemoryEngine
