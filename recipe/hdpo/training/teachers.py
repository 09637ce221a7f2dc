"""Who teaches, by ``hdpo.teacher``: whose weights read the privileged prompts, and how they get into place."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from tensordict import TensorDict
from torch.distributed.fsdp import FSDPModule

from recipe.hdpo.algorithm.teacher_topk import TeacherTopK
from recipe.hdpo.training.mixed_teacher import MixedCollector
from recipe.hdpo.training.teacher_pass import read_topk
from recipe.hdpo.training.weight_average import give_up_gathered

if TYPE_CHECKING:
    from recipe.hdpo.training.actor import HDPOActor


def read_teacher(actor: HDPOActor, batch: TensorDict) -> dict[int, TeacherTopK]:
    """The teacher's top-k of privileged sequences, by row id.

    Args:
        actor: set up for its teacher (``HDPOActor.set_up_hdpo``).
        batch: as for :func:`read_topk`.
    """
    hdpo, engine, reference = actor.hdpo, actor.engine, actor.teacher
    if hdpo.teacher == "ema":
        assert actor.average is not None
        return read_topk(actor, batch, hdpo, weights=actor.average.in_place_of_weights(engine.module))
    # The initial model is the reference worker or, with LoRA, the actor without its adapter.
    initial = nullcontext if reference else functools.partial(_without_adapter, engine)
    if hdpo.teacher == "frozen":
        with initial():
            return read_topk(reference or actor, batch, hdpo)
    if hdpo.teacher == "mixed":
        frozen_engine = reference.engine if reference else engine
        with frozen_engine.eval_mode() if reference else nullcontext():
            return read_topk(actor, batch, hdpo, collector=MixedCollector(hdpo, frozen_engine, initial))
    return read_topk(actor, batch, hdpo)


@contextmanager
def _without_adapter(engine: Any) -> Iterator[None]:
    """As verl's, and weights that were gathered meanwhile are let go of.

    PEFT switches the gradient of the adapter's weights off and on again, on those that the model holds at that moment.
    Were these the gathered ones at the end, the shards would stay without a gradient. And FSDP2 notes at its first
    forward which weights are trained, and in which precision their gradients are added up: that has to come before.
    """
    if isinstance(engine.module, FSDPModule):
        engine.module._get_fsdp_state()._lazy_init()
    with engine.disable_adapter():
        yield
        give_up_gathered(engine.module)
