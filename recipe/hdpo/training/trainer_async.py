"""HDPO in verl's asynchronous trainers: rollouts go on over the updates, and nothing waits for a privileged one."""

from __future__ import annotations

from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.single_controller.base.decorator import Dispatch, register
from verl.trainer.ppo.v1 import trainer_separate_async
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.config.keys import max_staleness
from recipe.hdpo.training.arrivals import Arrivals
from recipe.hdpo.training.evictions import Evictions
from recipe.hdpo.training.trainer import HDPOTrainer
from recipe.hdpo.training.verl_bugs import accept_flush, copy_of_weights
from recipe.hdpo.training.worker import HDPOWorker

accept_flush(trainer_separate_async)


class HDPOTrainerAsync(HDPOTrainer):
    """What both asynchronous trainers share: kept rows join whichever batch is made when they are done."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        self.arrivals = Arrivals(max_staleness(config, self.hdpo.max_staleness))
        asked, most = config.data.train_batch_size, self.hdpo.max_lost_rollouts
        self.evictions = Evictions(self.replay_buffer, asked, most)

    def _take_apart(self, batch: KVBatchMeta) -> tuple[KVBatchMeta, KVBatchMeta, dict[str, GroupRecord]]:
        batch, _, records = super()._take_apart(batch)
        kept, arrived = self.arrivals.take(self.global_steps)
        self.records += arrived.values()
        return batch, kept, records

    def _step_metrics(self) -> dict[str, float]:
        metrics = super()._step_metrics() | self.arrivals.metrics()
        for name, value in self.evictions.metrics().items():
            metrics[name] = metrics.get(name, 0.0) + value
        return metrics

    def _reissue_inflight_prompts(self, partition_id: str = transfer.TRAIN) -> int:
        """After a resume: the prompts whose rollouts were under way, and the cliffs whose privileged ones were."""
        inflight = super()._reissue_inflight_prompts(partition_id)
        return inflight + super()._reissue_inflight_prompts(transfer.CLIFFS)


class HDPOTrainerColocateAsync(HDPOTrainerAsync, PPOTrainerColocateAsync):
    """HDPO on accelerators that training and rollouts share in turn."""

    base_mode = "colocate_async"


class HDPODetachWorker(HDPOWorker, DetachActorWorker):
    """HDPO's worker that can put older weights into place, for log-probabilities inside a cycle of several updates."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_model_to_cpu(self, n: int) -> None:
        """Keep the weights under a number."""
        super().save_model_to_cpu(n)
        self.cpu_saved_models[n] = copy_of_weights(self.cpu_saved_models[n], self.actor.engine.module)


class HDPOTrainerSeparateAsync(HDPOTrainerAsync, PPOTrainerSeparateAsync):
    """HDPO on accelerators for training and others for rollouts, with several updates between two weight syncs.

    Each update reads the teacher anew for the kept rows that it has: a drifting teacher is the actor at its start.
    """

    base_mode = "separate_async"
    worker_cls = HDPODetachWorker
