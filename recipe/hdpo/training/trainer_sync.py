"""HDPO in verl's synchronous trainer, where a step waits for all that it asked for."""

from __future__ import annotations

import logging

from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.tracking.step_metrics import privileged_wait_seconds
from recipe.hdpo.training.reinjection import Reinjection
from recipe.hdpo.training.trainer import HDPOTrainer
from recipe.hdpo.training.waiting_cliffs import WaitingCliffs

logger = logging.getLogger(__name__)


class HDPOTrainerSync(HDPOTrainer, PPOTrainerSync):
    """HDPO with trainer and rollout on the same accelerators, one after the other."""

    base_mode = "sync"
    # How many cliffs of the last step are among this step's prompts.
    reissued = 0
    # Where hdpo.reinjection_delay is above 0.
    reinjection: Reinjection | None = None
    # Prompts of this step that stand in for prompts all of whose rollouts were lost.
    refilled = 0

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        # Cliffs that are re-issued a step later. With schedule=same_step none but those of a next_step run that this
        # one goes on from.
        self.waiting = WaitingCliffs()
        delay = self.hdpo.reinjection_delay
        self.reinjection = Reinjection(delay, self.hdpo.reinjection_share) if delay else None

    @property
    def _cliffs_wait(self) -> bool:
        return self.hdpo.privileged.n > 0 and self.hdpo.privileged.schedule == "next_step"

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

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        """Of the data loader's rows, without cliffs that rest and with those that come back."""
        if self.reinjection is None:
            return super()._next_train_batch(num_prompts)
        size, most = num_prompts or self.config.data.train_batch_size, len(self.train_dataset)
        batch = self.reinjection.next_batch(self.global_steps, size, self._fetch_one_gen_batch, most)
        tu.assign_non_tensor_data(batch, "global_steps", self.global_steps)
        return batch

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
        if self.reinjection is not None:
            metrics |= self.reinjection.settle(self.global_steps, self.records)
        return metrics

    def _save_beside(self, folder: str) -> None:
        super()._save_beside(folder)
        if self._cliffs_wait:
            self.waiting.save(folder)
        if self.reinjection is not None:
            self.reinjection.save(folder)

    def _load_beside(self, folder: str) -> None:
        super()._load_beside(folder)
        if self.reinjection is not None:
            self.reinjection.load(folder)
        self.waiting.load(folder, expected=self._cliffs_wait)
        privileged = self.hdpo.privileged
        if len(self.waiting) and (privileged.n == 0 or privileged.use == "replace"):
            logger.warning(
                f"the {len(self.waiting)} cliffs that wait in {folder} are not re-issued: with "
                f"hdpo.privileged.n={privileged.n} and use={privileged.use} nothing is asked for after their step"
            )
            self.waiting = WaitingCliffs()
