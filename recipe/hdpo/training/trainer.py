"""What HDPO adds to a step of each of verl's trainers: short overrides, in the order of a step.

verl's own pipeline (balancing, log-probabilities, advantages, metrics) sees rollout rows only. Privileged rows leave
the batch right after it was sampled and come back as extra info of the actor update. What is around the steps stands in
``trainer_frame.py``; the trainers themselves are in ``trainer_sync.py`` and ``trainer_async.py``.
"""

from __future__ import annotations

import logging
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta

from recipe.hdpo import transfer
from recipe.hdpo.algorithm import coefficient
from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.tracking.group_lines import GROUP_FOLDER, group_lines
from recipe.hdpo.tracking.kept_notes import KeptNotes
from recipe.hdpo.tracking.kept_text import write_kept, write_step
from recipe.hdpo.tracking.step_metrics import lost_too_many, no_privileged_rollout
from recipe.hdpo.training.by_key import pop_reliance
from recipe.hdpo.training.kept_lines import text_lines
from recipe.hdpo.training.token_record import keys_to_record
from recipe.hdpo.training.trainer_frame import FramedTrainer

logger = logging.getLogger(__name__)


class HDPOTrainer(FramedTrainer):
    """The part that all trainers share. It stands before one of verl's among the bases of a trainer."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        self.kept: KVBatchMeta | None = None
        # Keys of those whose tokens the update records.
        self.recorded: tuple[str, ...] = ()
        # Of the step so far, in which an asynchronous trainer may sample and update several times.
        self.records: list[GroupRecord] = []
        self.kept_lines: list[dict[str, Any]] = []
        self.notes = KeptNotes(self.hdpo.privileged.gate.reliance)

    def _step_metrics(self) -> dict[str, float]:
        """What the step's groups came to, once all of them are known."""
        return self.history.update(self.records)

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        folder = self.config.trainer.get("rollout_data_dir", None)
        if self.kept is not None and self.kept.keys:
            if folder:
                self.kept_lines += text_lines(self.tokenizer, self.kept, self.recorded, self.notes.line)
            tq.kv_clear(keys=self.kept.keys, partition_id=self.kept.partition_id)
        self.kept, self.recorded = None, ()
        if self._is_last_update():
            if folder:
                write_kept(folder, self.global_steps, self.kept_lines)
            self.kept_lines = []
            self.notes.clear()
        return batch

    def _is_last_update(self) -> bool:
        """Whether the step ends with this update; an asynchronous trainer may make several."""
        return self.local_trigger_step == self.parameter_sync_step - 1

    def _take_apart(self, batch: KVBatchMeta) -> tuple[KVBatchMeta, KVBatchMeta, dict[str, GroupRecord]]:
        """A sampled batch as rollout rows, kept privileged rows, and the records of its groups."""
        return transfer.split_batch(batch)

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, **kwargs: Any) -> KVBatchMeta:
        batch, self.kept, records = self._take_apart(batch)
        # With no row there is nothing to train on, whatever the knob says.
        most = self.hdpo.max_lost_rollouts if batch.keys else 0.0
        stop = lost_too_many(list(records.values()), most)
        if stop or not batch.keys:
            raise RuntimeError(f"step {self.global_steps}: {stop or 'there is no rollout to train on'}")
        self.records += records.values()
        self.notes.see(self.records)
        if self._is_last_update():
            # Counted once for the whole step: verl averages over its updates.
            metrics.update(self._step_metrics())
            if said := no_privileged_rollout(self.records):
                logger.warning(f"step {self.global_steps}: {said}")
            if folder := self.config.trainer.get("rollout_data_dir", None):
                write_step(folder, GROUP_FOLDER, self.global_steps, group_lines(self.records))
            self.records = []
        if records:
            tq.kv_clear(keys=list(records), partition_id=batch.partition_id)
        return super()._balance_batch(batch, metrics, **kwargs)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        schedule, share = self.hdpo.distillation_loss_schedule, self.history.cliff_share
        factor = coefficient.factor(schedule, self.global_steps, self.total_training_steps, share)
        metrics["hdpo/distillation_loss_coef"] = self.hdpo.distillation_loss_coef * factor
        if self.kept is not None and self.kept.keys and metrics["hdpo/distillation_loss_coef"] > 0:
            interval = self.hdpo.gradient_ratio_interval
            if self.config.trainer.get("rollout_data_dir", None):
                self.recorded = keys_to_record(self.kept)
            batch.extra_info[transfer.KEPT] = transfer.KeptRows(
                keys=self.kept.keys,
                partition=self.kept.partition_id,
                tokens=[tag["seq_len"] for tag in self.kept.tags],
                factor=factor,
                measure_gradients=interval > 0 and self.global_steps % interval == 0,
                recorded=self.recorded,
            )
        batch = super()._update_actor(batch, metrics)
        self.notes.update(pop_reliance(metrics))
        if self._is_last_update():
            # Of the whole step, as the records' metrics.
            metrics |= self.notes.metrics()
        for name in [name for name in metrics if name.startswith("actor/hdpo/")]:
            metrics[name.removeprefix("actor/")] = metrics.pop(name)
        return batch
