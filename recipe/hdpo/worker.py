"""HDPO's actor worker: the teacher pass, and one optimizer step per mini-batch on both terms.

verl's ``update_actor`` hands a worker its share of the rollout rows and cuts them into mini-batches. Here the worker
also fetches its share of the privileged rows, reads the teacher's top-k for them once, with the weights of the start of
the step, and adds them to the mini-batches, evenly; so a privileged row never makes an optimizer step of its own. Ranks
with fewer rows fill up with dummies of two tokens: every rank runs the same number of forwards.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.utils.transferqueue_utils import KVBatchMeta, _meta_to_realdata
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from recipe.hdpo import rows
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.checks import read_hdpo
from recipe.hdpo.gradients import term_gradient_norms
from recipe.hdpo.loss import HDPOLoss
from recipe.hdpo.teacher import hard_labels, read_topk

MEASURE_GRADIENTS = "hdpo_measure_gradients"


class HDPOActor(TrainingWorker):
    """verl's training worker with privileged rows in its mini-batches."""

    loss_fn: HDPOLoss

    def set_up_hdpo(self, hdpo: HDPOConfig, teacher: TrainingWorker | None, pad_token_id: int) -> None:
        """Called once the model is built.

        Args:
            teacher: the reference worker for a frozen teacher; None for the actor itself.
            pad_token_id: what dummy rows are made of.
        """
        self.hdpo, self.teacher, self.pad_token_id = hdpo, teacher, pad_token_id
        self.mini_batch_rows: list[TensorDict] = []
        self.updates = 0

    def train_mini_batch(self, data: TensorDict) -> TensorDict:
        """verl's loop over mini-batches; privileged rows, if the trainer names any, join it."""
        keys_by_rank = tu.pop(data, key=rows.KEYS_BY_RANK, default=None)
        self.measure_gradients = bool(tu.pop(data, key=MEASURE_GRADIENTS, default=False))
        self.mini_batch_rows, self.updates, seconds = [], 0, 0.0
        if keys_by_rank is not None:
            begin = time.perf_counter()
            prompts, teacher_prompts, responses = self._fetch(keys_by_rank)
            self._read_teacher(teacher_prompts, responses, temperature=data["temperature"])
            self.mini_batch_rows = self._split(prompts, responses, self._num_mini_batches(data))
            seconds = time.perf_counter() - begin
        output = super().train_mini_batch(data)
        if keys_by_rank is not None and output is not None:
            tu.get(output, "metrics")["hdpo/timing_s/teacher_pass"] = seconds
        self.loss_fn.targets.clear()
        return output

    def train_batch(self, data: TensorDict) -> TensorDict:
        """One optimizer step. Mini-batch i of an epoch gets the i-th part of the privileged rows."""
        part = self.mini_batch_rows[self.updates % len(self.mini_batch_rows)] if self.mini_batch_rows else None
        self.updates += 1
        if part is None or len(part) == 0:
            return super().train_batch(data)
        batch = rows.append_privileged_rows(data, part)
        lengths, ids = part["responses"].offsets().diff(), part[rows.ROW_ID]
        num_tokens = lengths[ids >= 0].sum().to(get_device_id())
        torch.distributed.all_reduce(num_tokens, group=self.engine.get_data_parallel_group())
        tu.assign_non_tensor(batch, distillation_use_topk=True, **{rows.NUM_TOKENS: int(num_tokens.item())})
        norms = term_gradient_norms(self, batch) if self.measure_gradients and self.updates == 1 else {}
        output = super().train_batch(batch)
        if output is not None:
            tu.get(output, "metrics").update(norms)
        return output

    def _num_mini_batches(self, data: TensorDict) -> int:
        return data.shape[0] * self.engine.get_data_parallel_size() // data["mini_batch_size"]

    def _fetch(self, keys_by_rank: list[list[str]]) -> list[list[torch.Tensor]]:
        """This rank's privileged rows as [student prompts, teacher prompts, responses], filled up with dummies to the
        number of rows of the rank that has most."""
        keys = keys_by_rank[self.engine.get_data_parallel_rank()]
        columns = self._fetch_columns(keys)
        self.num_real_rows = len(keys)
        for _ in range(max(map(len, keys_by_rank)) - len(keys)):
            for column in columns:
                column.append(torch.tensor([self.pad_token_id]))
        return columns

    def _fetch_columns(self, keys: list[str]) -> list[list[torch.Tensor]]:
        """The fields of privileged rows from TransferQueue, joined by key."""
        if not keys:
            return [[] for _ in rows.FIELDS]
        meta = KVBatchMeta(keys=keys, tags=[{}] * len(keys), partition_id="train", fields=rows.FIELDS)
        fetched = _meta_to_realdata(meta)
        return [list(fetched[name].unbind()) for name in rows.FIELDS]

    def _row_ids(self, num_rows: int) -> list[int]:
        return [i if i < self.num_real_rows else rows.DUMMY_ROW for i in range(num_rows)]

    def _read_teacher(self, prompts: list[torch.Tensor], responses: list[torch.Tensor], temperature: float) -> None:
        self.loss_fn.targets.clear()
        if not self.hdpo.reads_teacher:
            self.loss_fn.targets.update(hard_labels(responses[: self.num_real_rows]))
            return
        batch = rows.sequence_batch(prompts, responses, self._row_ids(len(prompts)))
        tu.assign_non_tensor(batch, temperature=temperature)
        without_adapter = self.hdpo.teacher == "frozen" and self.teacher is None
        context = self.engine.disable_adapter() if without_adapter else nullcontext()
        with context:
            self.loss_fn.targets.update(read_topk(self.teacher or self, batch, self.hdpo))

    def _split(
        self, prompts: list[torch.Tensor], responses: list[torch.Tensor], num_mini_batches: int
    ) -> list[TensorDict]:
        """The rows in as many parts as there are mini-batches; part sizes differ by at most one micro-batch."""
        step = 1 if self.engine_config.use_dynamic_bsz else self.engine_config.micro_batch_size_per_gpu
        row_ids = self._row_ids(len(prompts))
        dummy = torch.tensor([self.pad_token_id])
        missing = -len(prompts) % step
        prompts, responses = prompts + [dummy] * missing, responses + [dummy] * missing
        row_ids = row_ids + [rows.DUMMY_ROW] * missing
        units = torch.arange(len(prompts)).view(-1, step).tensor_split(num_mini_batches)
        parts = [unit.flatten().tolist() for unit in units]
        return [
            rows.sequence_batch([prompts[i] for i in part], [responses[i] for i in part], [row_ids[i] for i in part])
            if part
            else TensorDict({}, batch_size=[0])
            for part in parts
        ]


class HDPOWorker(ActorRolloutRefWorker):
    """verl's hybrid worker with :class:`HDPOActor` as its actor. The trainer puts the knobs into its config."""

    actor_worker_cls = HDPOActor

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        """Build the model, then hand the actor its loss and its teacher."""
        super().init_model()
        hdpo = read_hdpo(self.config)
        lora = self.actor.engine_config is not None and getattr(self.actor.engine, "_is_lora", False)
        if hdpo.teacher == "frozen" and self.ref is None and not lora and hdpo.reads_teacher:
            raise ValueError(
                "hdpo.teacher=frozen needs the initial model's weights, but this worker has neither a reference model "
                "nor a LoRA adapter to switch off: run it by trainer.v1.trainer_mode=hdpo, or set hdpo.teacher=drifting"
            )
        actor_config = self.loss_fn.keywords["config"]
        tokenizer: Any = self.actor.model_config.tokenizer
        self.actor.set_up_hdpo(hdpo, self.ref if hdpo.teacher == "frozen" else None, tokenizer.eos_token_id)
        self.set_loss_fn(HDPOLoss(actor_config=actor_config, hdpo=hdpo))
