"""HDPO in verl's synchronous trainer, where a step waits for all that it asked for."""

from __future__ import annotations

import logging

from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.tracking.step_metrics import privileged_wait_seconds
from recipe.hdpo.training.trainer import HDPOTrainer
from recipe.hdpo.training.waiting_cliffs import WaitingCliffs

logger = logging.getLogger(__name__)


class HDPOTrainerSync(HDPOTrainer, PPOTrainerSync):
    """HDPO with trainer and rollout on the same accelerators, one after the other."""

    base_mode = "sync"
    # How many cliffs of the last step are among this step's prompts.
    reissued = 0
    # Prompts of this step that stand in for prompts all of whose rollouts were lost.
    refilled = 0

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        # Cliffs that are re-issued a step later. With schedule=same_step none but those of a next_step run that this
        # one goes on from.
        self.waiting = WaitingCliffs()

    @property
    def _cliffs_wait(self) -> bool:
        return self.hdpo.privileged.schedule == "next_step"

    def _add_prompts_to_generate(self, num_prompts: int) -> int:
        """With ``sync_refill_failed_groups`` verl asks for a prompt in the place of each that lost all its rollouts;
        where every prompt does, it would ask for ever."""
        self.refilled += num_prompts
        asked, most = self.config.data.train_batch_size, self.hdpo.max_lost_rollouts
        if self.refilled > most * asked:
            raise RuntimeError(
                f"step {self.global_steps}: {self.refilled} prompts lost all their rollouts and were replaced, beside "
                f"{asked} that were asked for; hdpo.max_lost_rollouts={most:g} allows no more. The first error of an "
                "agent-loop worker above says why"
            )
        return super()._add_prompts_to_generate(num_prompts)

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        if self._cliffs_wait:
            self.waiting.asked.append(batch)
        return super()._submit_batch_to_rollout(batch)

    def prepare_step(self) -> dict:
        """After this step's prompts, those of the last step's cliffs that have waited for it: verl's engines begin
        with what takes longest."""
        metrics = super().prepare_step()
        rows = self.waiting.take(self.global_steps)
        self.reissued = 0 if rows is None else super()._submit_batch_to_rollout(rows)
        return metrics

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        self.refilled = 0
        return super()._step_once(metrics, timing_raw, sample_batch_size + self.reissued)

    def _take_apart(self, batch: KVBatchMeta) -> tuple[KVBatchMeta, KVBatchMeta, dict[str, GroupRecord]]:
        batch, kept, records = super()._take_apart(batch)
        if self._cliffs_wait:
            self.waiting.remember(records)
            if self.global_steps >= self.total_training_steps and len(self.waiting):
                logger.warning(
                    f"the {len(self.waiting)} cliffs of the last step are not re-issued, unless a longer run goes on "
                    "from its checkpoint"
                )
        return batch, kept, records

    def _step_metrics(self) -> dict[str, float]:
        metrics = super()._step_metrics()
        metrics["hdpo/timing_s/privileged_wait"] = privileged_wait_seconds(self.records)
        if self._cliffs_wait:
            metrics["hdpo/waiting_cliffs"] = len(self.waiting)
        return metrics

    def _save_beside(self, folder: str) -> None:
        super()._save_beside(folder)
        if self._cliffs_wait:
            self.waiting.save(folder)

    def _load_beside(self, folder: str) -> None:
        super()._load_beside(folder)
        self.waiting.load(folder, expected=self._cliffs_wait)
        privileged = self.hdpo.privileged
        if len(self.waiting) and (privileged.n == 0 or privileged.use == "replace"):
            logger.warning(
                f"the {len(self.waiting)} cliffs that wait in {folder} are not re-issued: with "
                f"hdpo.privileged.n={privileged.n} and use={privileged.use} nothing is asked for after their step"
            )
            self.waiting = WaitingCliffs()
