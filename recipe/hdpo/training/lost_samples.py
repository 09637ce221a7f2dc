"""Validation samples that were lost: verl leaves them out of a batch, and fails on a batch of none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def refuse_empty_validation(buffer: Any) -> None:
    """Let verl's replay buffer raise RuntimeError where it would hand out validation prompts without any sample."""
    sample = buffer.sample

    def checked(global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict]:
        batch, metrics = sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        if partition_id == "val" and not batch.keys:
            raise RuntimeError(
                f"validation at step {global_steps}: all samples of {batch_size} prompts were lost to errors of the "
                "agent loop or the engine. The first error of an agent-loop worker above says why; "
                "trainer.val_before_train=false trains without a validation before the first step"
            )
        return batch, metrics

    buffer.sample = checked


def lost_too_many_samples(reasons: Sequence[str | None], asked: int, most: float) -> str | None:
    """What to say where more than the share ``most`` of the validation samples has no reward; None elsewhere.

    Args:
        reasons: of every sample that is there, why it has no usable reward; empty or None where it has one.
        asked: samples that were asked for. Those that are not there were lost before a reward.
    """
    found = [reason for reason in reasons if reason]
    lost = len(found) + asked - len(reasons)
    if lost <= most * asked:
        return None
    said = f"the first: {found[0]}" if found else "an agent-loop worker's log says why"
    return f"{lost} of {asked} samples have no reward, more than hdpo.max_lost_rollouts={most:g} allows; {said}"
