"""What surrounds HDPO's steps in each of verl's trainers: start-up, the watchdog, validation, checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from typing import ClassVar

import ray
from omegaconf import DictConfig, open_dict
from verl.experimental.agent_loop import AgentLoopManager
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.utils import get_max_position_embeddings

from recipe.hdpo.algorithm.cliff import UNSCORED
from recipe.hdpo.config.adapt import adapt, fit_positions
from recipe.hdpo.config.checks import check_config
from recipe.hdpo.config.keys import uses_lora
from recipe.hdpo.config.startup import check_data, check_model
from recipe.hdpo.data.checks import check_rows
from recipe.hdpo.rollout.chat_template import (
    make_privileged_token_builder,
    make_token_builder,
    missing_chat_template,
)
from recipe.hdpo.rollout.greedy_validation import GREEDY_SCORE
from recipe.hdpo.rollout.prompt_check import check_prompts
from recipe.hdpo.tracking.folder_lock import lock_folder
from recipe.hdpo.tracking.run_history import History
from recipe.hdpo.tracking.teacher_collapse import STUDENT, CollapseMonitor
from recipe.hdpo.tracking.validation_metrics import greedy_accuracy, validation_passk
from recipe.hdpo.training import checkpoints
from recipe.hdpo.training.lost_samples import lost_too_many_samples, refuse_empty_validation
from recipe.hdpo.training.shared_queue import refuse_shared_queue
from recipe.hdpo.training.watchdog import ActorWatch, Watchdog, actors_of, progress_of
from recipe.hdpo.training.whole_data import refuse_too_few, whole_dataset
from recipe.hdpo.training.worker import HDPOWorker

logger = logging.getLogger(__name__)


class FramedTrainer(PPOTrainer):
    """verl's trainer with the checks, the watch and the memory that HDPO's steps need."""

    # verl's name of that trainer, and the worker that holds the actor.
    base_mode: ClassVar[str]
    worker_cls: ClassVar[type[HDPOWorker]] = HDPOWorker
    # The checkpoint to load in the place of the one that verl would load; the step that the run went on from.
    resume_folder: str | None = None
    resumed_step = 0

    def __init__(self, config: DictConfig) -> None:
        refuse_shared_queue()
        self.hdpo = check_config(config)
        for line in adapt(config, self.hdpo):
            logger.log(logging.INFO if self.hdpo.adv_estimator else logging.WARNING, line)
        with open_dict(config):
            # verl compares this name with "sync" in many places, and reads the settings under it.
            config.trainer.v1.trainer_mode = self.base_mode
            # The worker gets this node of the config only.
            config.actor_rollout_ref.hdpo = config.hdpo
        # Extra rollouts of the plain prompt show nothing of a teacher.
        threshold = self.hdpo.collapse_warning if self.hdpo.privileged.shows else 0.0
        self.history = History(
            teacher=CollapseMonitor(threshold),
            student=CollapseMonitor(self.hdpo.collapse_warning, STUDENT),
            knobs=dataclasses.asdict(self.hdpo),
            sources=self.hdpo.privileged.sources,
        )
        super().__init__(config)
        self.replay_buffer.poll_interval = self.hdpo.poll_interval
        self.watchdog = Watchdog(
            self.hdpo.stall_timeout,
            dead=ActorWatch(functools.partial(actors_of, self)).dead,
            progress=functools.partial(progress_of, self),
            last_whole=functools.partial(checkpoints.last_whole_line, config),
        )
        self.watchdog.watch_rows(self.replay_buffer)
        refuse_empty_validation(self.replay_buffer)

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
        models = (self.tokenizer, self.processor, model_config.hf_config)
        self.privileged_builder = make_privileged_token_builder(self.config, self.hdpo, *models)
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
            check_prompts(self.config, self.hdpo, self.token_builder, train, self.privileged_builder)
        try:
            super()._init_dataloader()
        finally:
            # Where verl fails on too few rows, that is the error to show.
            for split in ("train", "val"):
                refuse_too_few(self.config, split, getattr(self, f"{split}_dataset", None))
        if train is None:
            check_data(self.config, self.hdpo, self.train_dataset)
            check_rows(self.config, self.hdpo, self.val_dataset, files="val_files")
            check_prompts(self.config, self.hdpo, self.token_builder, self.train_dataset, self.privileged_builder)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        role = next(r for r in (Role.Actor, Role.ActorRolloutRef, Role.ActorRollout) if r in self.role_worker_mapping)
        pool = self.mapping.pop(role)
        self.role_worker_mapping.pop(role)
        if role is not Role.Actor and self.hdpo.reads_initial_model and not uses_lora(self.config):
            role = Role.ActorRolloutRef
        self.role_worker_mapping[role] = ray.remote(self.worker_cls)
        self.mapping[role] = pool

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
        if stop := lost_too_many_samples(reasons, sum(expected_acc_counts.values()), self.hdpo.max_lost_rollouts):
            raise RuntimeError(f"validation at step {self.global_steps}: {stop}")
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

    # ---- checkpoints ----

    def _save_beside(self, folder: str) -> None:
        """Write the recipe's files of a checkpoint folder."""
        self.history.rows = len(self.train_dataset)
        self.history.save(folder)

    def _load_beside(self, folder: str) -> None:
        """Read what :meth:`_save_beside` wrote."""
        self.history.rows = len(self.train_dataset)
        self.history.load(folder)

    def _save_checkpoint(self) -> None:
        # Before verl's own files: it writes the mark of a whole checkpoint last.
        self._save_beside(os.path.join(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}"))
        super()._save_checkpoint()
        checkpoints.delete_in_turn(self.config, self.resumed_step, self.global_steps)

    def _load_checkpoint(self) -> None:
        with checkpoints.resuming_from(self.config, self.resume_folder):
            super()._load_checkpoint()
        if self.global_steps == 0:
            return
        folder = checkpoints.root(self.config)
        if self.config.trainer.resume_mode == "resume_path":
            folder = os.path.dirname(os.path.abspath(self.config.trainer.resume_from_path))
        if folder == checkpoints.root(self.config):
            self.resumed_step = self.global_steps
        self._load_beside(os.path.join(folder, f"global_step_{self.global_steps}"))
