"""Who teaches, by ``hdpo.teacher``: whose weights read the privileged prompts, and how they get into place."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from tensordict import TensorDict

from recipe.hdpo.algorithm.teacher_topk import TeacherTopK
from recipe.hdpo.training.mixed_teacher import MixedCollector
from recipe.hdpo.training.teacher_pass import read_topk

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
    initial = nullcontext if reference else engine.disable_adapter
    if hdpo.teacher == "frozen":
        with initial():
            return read_topk(reference or actor, batch, hdpo)
    if hdpo.teacher == "mixed":
        frozen_engine = reference.engine if reference else engine
        with frozen_engine.eval_mode() if reference else nullcontext():
            return read_topk(actor, batch, hdpo, collector=MixedCollector(hdpo, frozen_engine, initial))
    return read_topk(actor, batch, hdpo)
