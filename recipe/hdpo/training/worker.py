"""verl's hybrid worker (actor, rollout, reference) with HDPO's actor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf, open_dict
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker

from recipe.hdpo.config.checks import read_hdpo
from recipe.hdpo.training.actor import HDPOActor
from recipe.hdpo.training.fused_head import FusedHead
from recipe.hdpo.training.loss import HDPOLoss
from recipe.hdpo.training.policy_loss import use_clipped_loss


class HDPOWorker(ActorRolloutRefWorker):
    """verl's hybrid worker with :class:`HDPOActor` as its actor. The trainer puts the knobs into its config."""

    actor_worker_cls = HDPOActor

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        """Build the model, then hand the actor its loss and its teacher."""
        use_clipped_loss(self.config.actor)
        hdpo = read_hdpo(self.config)
        if OmegaConf.select(self.config, "model.use_fused_kernels"):
            # verl's own would take the place of the model's forward, and give log-probabilities and entropy alone.
            hdpo = replace(hdpo, fused_head=True)
            with open_dict(self.config):
                self.config.model.use_fused_kernels = False
        super().init_model()
        lora = self.actor.engine_config is not None and getattr(self.actor.engine, "_is_lora", False)
        if hdpo.reads_initial_model and self.ref is None and not lora:
            raise ValueError(
                f"hdpo.teacher={hdpo.teacher} needs the initial model's weights, but this worker has neither a "
                "reference model nor a LoRA adapter to switch off: run it by trainer.v1.trainer_mode=hdpo, or set "
                "hdpo.teacher=drifting"
            )
        actor_config = self.loss_fn.keywords["config"]
        tokenizer: Any = self.actor.model_config.tokenizer
        teacher = self.ref if hdpo.reads_initial_model else None
        self.actor.set_up_hdpo(hdpo, teacher, tokenizer.eos_token_id)
        if hdpo.fused_head and self.ref is not None and teacher is None:
            FusedHead(self.ref.engine, hdpo)  # read for a KL term
        self.set_loss_fn(HDPOLoss(actor_config=actor_config, hdpo=hdpo))
