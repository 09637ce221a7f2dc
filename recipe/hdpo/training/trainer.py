"""HDPO's trainer: short overrides of verl's synchronous trainer, in the order of a step.

verl's own pipeline (balancing, log-probabilities, advantages, metrics) sees rollout rows only. Privileged rows leave
the batch right after it was sampled and come back as extra info of the actor update.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from typing import Any

import ray
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop import AgentLoopManager
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.utils import get_max_position_embeddings

from recipe.hdpo import transfer
from recipe.hdpo.algorithm import coefficient
from recipe.hdpo.algorithm.cliff import UNSCORED, GroupRecord
from recipe.hdpo.config.adapt import adapt, fit_positions
from recipe.hdpo.config.checks import check_config
from recipe.hdpo.config.keys import uses_lora
from recipe.hdpo.config.startup import check_data, check_model
from recipe.hdpo.data.checks import check_rows
from recipe.hdpo.rollout.chat_template import make_token_builder, missing_chat_template
from recipe.hdpo.rollout.greedy_validation import GREEDY_SCORE
from recipe.hdpo.rollout.prompt_check import check_prompts
from recipe.hdpo.tracking.folder_lock import lock_folder
from recipe.hdpo.tracking.kept_text import kept_line, write_kept
from recipe.hdpo.tracking.run_history import History
from recipe.hdpo.tracking.step_metrics import lost_too_many
from recipe.hdpo.tracking.teacher_collapse import CollapseMonitor
from recipe.hdpo.tracking.validation_metrics import greedy_accuracy, validation_passk
from recipe.hdpo.training import checkpoints
from recipe.hdpo.training.actor import HDPOWorker
from recipe.hdpo.training.shared_queue import refuse_shared_queue
from recipe.hdpo.training.waiting_cliffs import WaitingCliffs
from recipe.hdpo.training.watchdog import ActorWatch, Watchdog, actors_of, progress_of
from recipe.hdpo.training.whole_data import refuse_empty, whole_dataset

logger = logging.getLogger(__name__)


class HDPOTrainerSync(PPOTrainerSync):
    """HDPO with trainer and rollout on the same accelerators, one after the other."""

    # The checkpoint to load in the place of the one that verl would load; the step that the run went on from.
    resume_folder: str | None = None
    resumed_step = 0
    # Cliffs that are re-issued a step later, and how many of the last step's are among this step's prompts.
    waiting: WaitingCliffs | None = None
    reissued = 0

    def __init__(self, config: DictConfig) -> None:
        refuse_shared_queue()
        self.hdpo = check_config(config)
        for line in adapt(config, self.hdpo):
            logger.log(logging.INFO if self.hdpo.adv_estimator else logging.WARNING, line)
        with open_dict(config):
            # verl compares this name with "sync" in many places.
            config.trainer.v1.trainer_mode = "sync"
            # The worker gets this node of the config only.
            config.actor_rollout_ref.hdpo = config.hdpo
        # Extra rollouts of the plain prompt show nothing of a teacher.
        threshold = 0.0 if self.hdpo.privileged.source == "problem" else self.hdpo.collapse_warning
        self.history = History(teacher=CollapseMonitor(threshold), knobs=dataclasses.asdict(self.hdpo))
        self.kept: KVBatchMeta | None = None
        # Prompts of this step that stand in for prompts all of whose rollouts were lost.
        self.refilled = 0
        if self.hdpo.privileged.schedule == "next_step":
            self.waiting = WaitingCliffs()
        super().__init__(config)
        self.replay_buffer.poll_interval = self.hdpo.poll_interval
        self.watchdog = Watchdog(
            self.hdpo.stall_timeout,
            dead=ActorWatch(functools.partial(actors_of, self)).dead,
            progress=functools.partial(progress_of, self),
            last_whole=functools.partial(checkpoints.last_whole_line, config),
        )
        self.watchdog.watch_rows(self.replay_buffer)

    def init(self) -> None:
        settings = self.config.trainer
        if settings.save_freq > 0 and not settings.get("val_only", False):
            lock_folder(settings.default_local_dir)
        self.resume_folder = checkpoints.check_resume(self.config)
        self.watchdog.run(super().init)

    def fit(self, agent_loop_manager: AgentLoopManager) -> None:
        self.watchdog.run(functools.partial(super().fit, agent_loop_manager))

    # ---- start-up ----

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        model_config = omega_conf_to_dataclass(self.config.actor_rollout_ref.model)
        check_model(self.hdpo, model_config.hf_config, self.processor)
        self.token_builder = make_token_builder(self.config, self.tokenizer, self.processor, model_config.hf_config)
        if problem := missing_chat_template(self.token_builder):
            raise ValueError(problem)
        fit_positions(self.config, self.hdpo, get_max_position_embeddings(model_config.hf_config))

    def _init_dataloader(self) -> None:
        # verl's filter of long prompts prints a traceback for a row that it cannot read, and drops it.
        train = whole_dataset(self.config, "train", self.tokenizer, self.processor)
        val = whole_dataset(self.config, "val", self.tokenizer, self.processor)
        if train is not None:
            check_data(self.config, self.hdpo, train)
            check_rows(self.config, self.hdpo, val, files="val_files")
            check_prompts(self.config, self.hdpo, self.token_builder, train)
        try:
            super()._init_dataloader()
        except Exception:
            for split in ("train", "val"):
                refuse_empty(self.config, split, getattr(self, f"{split}_dataset", None))
            raise
        if train is None:
            check_data(self.config, self.hdpo, self.train_dataset)
            check_rows(self.config, self.hdpo, self.val_dataset, files="val_files")
            check_prompts(self.config, self.hdpo, self.token_builder, self.train_dataset)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        role = Role.ActorRolloutRef if Role.ActorRolloutRef in self.mapping else Role.ActorRollout
        pool = self.mapping.pop(role)
        self.role_worker_mapping.pop(role)
        if self.hdpo.reads_initial_model and not uses_lora(self.config):
            role = Role.ActorRolloutRef
        self.role_worker_mapping[role] = ray.remote(HDPOWorker)
        self.mapping[role] = pool

    # ---- one step ----

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
        if self.waiting is not None:
            self.waiting.asked.append(batch)
        return super()._submit_batch_to_rollout(batch)

    def prepare_step(self) -> dict:
        """After this step's prompts, those of the last step's cliffs that have waited for it: verl's engines begin
        with what takes longest."""
        metrics = super().prepare_step()
        rows = None if self.waiting is None else self.waiting.take(self.global_steps)
        self.reissued = 0 if rows is None else super()._submit_batch_to_rollout(rows)
        return metrics

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        self.refilled = 0
        batch = super()._step_once(metrics, timing_raw, sample_batch_size + self.reissued)
        if self.kept is not None and self.kept.keys:
            self._dump_kept(self.kept, self.config.trainer.get("rollout_data_dir", None))
            tq.kv_clear(keys=self.kept.keys, partition_id=self.kept.partition_id)
        self.kept = None
        return batch

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, **kwargs: Any) -> KVBatchMeta:
        batch, self.kept, records = transfer.split_batch(batch)
        # With no row there is nothing to train on, whatever the knob says.
        most = self.hdpo.max_lost_rollouts if batch.keys else 0.0
        stop = lost_too_many(list(records.values()), most)
        if stop or not batch.keys:
            raise RuntimeError(f"step {self.global_steps}: {stop or 'there is no rollout to train on'}")
        metrics.update(self.history.update(list(records.values())))
        if self.waiting is not None:
            metrics.update(self._let_wait(self.waiting, records))
        if records:
            tq.kv_clear(keys=list(records), partition_id=batch.partition_id)
        return super()._balance_batch(batch, metrics, **kwargs)

    def _let_wait(self, waiting: WaitingCliffs, records: dict[str, GroupRecord]) -> dict[str, float]:
        waiting.remember(records)
        if self.global_steps >= self.total_training_steps and len(waiting):
            logger.warning(
                f"the {len(waiting)} cliffs of the last step are not re-issued, unless a longer run goes on from its "
                "checkpoint"
            )
        return {"hdpo/waiting_cliffs": len(waiting)}

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        schedule, share = self.hdpo.distillation_loss_schedule, self.history.cliff_share
        factor = coefficient.factor(schedule, self.global_steps, self.total_training_steps, share)
        metrics["hdpo/distillation_loss_coef"] = self.hdpo.distillation_loss_coef * factor
        if self.kept is not None and self.kept.keys and metrics["hdpo/distillation_loss_coef"] > 0:
            interval = self.hdpo.gradient_ratio_interval
            batch.extra_info[transfer.KEPT] = transfer.KeptRows(
                keys=self.kept.keys,
                tokens=[tag["seq_len"] for tag in self.kept.tags],
                factor=factor,
                measure_gradients=interval > 0 and self.global_steps % interval == 0,
            )
        batch = super()._update_actor(batch, metrics)
        for name in [name for name in metrics if name.startswith("actor/hdpo/")]:
            metrics[name.removeprefix("actor/")] = metrics.pop(name)
        return batch

    def _dump_kept(self, kept: KVBatchMeta, folder: str | None) -> None:
        """Write the step's kept trajectories as text, where verl dumps rollouts."""
        if not folder:
            return
        data = tq.kv_batch_get(keys=kept.keys, partition_id=kept.partition_id, select_fields=transfer.FIELDS)
        lines = []
        for key, *texts, mask in zip(kept.keys, *(data[name].unbind() for name in transfer.FIELDS), strict=True):
            named = dict(zip(transfer.TEXTS, texts, strict=True))
            lines.append({"key": key, **kept_line(self.tokenizer.decode, named, mask)})
        write_kept(folder, self.global_steps, lines)

    # ---- validation ----

    def _val_metrics_update(
        self,
        data_sources: list,
        sample_uids: list,
        reward_extra_infos_dict: dict,
        sample_turns: list,
        expected_acc_counts: dict[tuple[str, str], int],
    ) -> dict[str, float]:
        """verl's metrics, and unbiased pass@k and greedy accuracy under names of their own."""
        greedy_scores = reward_extra_infos_dict.pop(GREEDY_SCORE, None)
        reasons = reward_extra_infos_dict.pop(UNSCORED, [None] * len(sample_uids))
        self._check_unscored(reasons, sum(expected_acc_counts.values()))
        metrics = super()._val_metrics_update(
            data_sources, sample_uids, reward_extra_infos_dict, sample_turns, expected_acc_counts=expected_acc_counts
        )
        success = self.hdpo.success_reward
        if greedy_scores is not None:
            metrics |= greedy_accuracy(expected_acc_counts, sample_uids, greedy_scores, success)
        samples = zip(sample_uids, reward_extra_infos_dict["reward"], reasons, strict=True)
        scored = [(uid, reward) for uid, reward, reason in samples if not reason]
        return metrics | validation_passk(
            expected_acc_counts, [uid for uid, _ in scored], [reward for _, reward in scored], success
        )

    def _check_unscored(self, reasons: list[str | None], asked: int) -> None:
        """Stop where too large a share of the validation samples has no usable reward; the others count as lost."""
        found = [reason for reason in reasons if reason]
        if len(found) > self.hdpo.max_lost_rollouts * asked:
            raise RuntimeError(
                f"validation at step {self.global_steps}: {len(found)} of {asked} samples have no reward, more than "
                f"hdpo.max_lost_rollouts={self.hdpo.max_lost_rollouts:g} allows; the first: {found[0]}"
            )

    # ---- checkpoints ----

    def _save_checkpoint(self) -> None:
        self.history.rows = len(self.train_dataset)
        # Before verl's own files: it writes the mark of a whole checkpoint last.
        folder = os.path.join(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")
        self.history.save(folder)
        if self.waiting is not None:
            self.waiting.save(folder)
        super()._save_checkpoint()
        checkpoints.delete_in_turn(self.config, self.resumed_step, self.global_steps)

    def _load_checkpoint(self) -> None:
        with checkpoints.resuming_from(self.config, self.resume_folder):
            super()._load_checkpoint()
        if self.global_steps == 0:
            return
        self.history.rows = len(self.train_dataset)
        folder = checkpoints.root(self.config)
        if self.config.trainer.resume_mode == "resume_path":
            folder = os.path.dirname(os.path.abspath(self.config.trainer.resume_from_path))
        if folder == checkpoints.root(self.config):
            self.resumed_step = self.global_steps
        folder = os.path.join(folder, f"global_step_{self.global_steps}")
        self.history.load(folder)
        if self.waiting is not None:
            self.waiting.load(folder)
