"""HDPO's actor: the teacher pass, and one optimizer step per mini-batch on both terms.

verl's ``update_actor`` hands a worker its share of the rollout rows and cuts them into mini-batches. Here the worker
also fetches its share of the privileged rows, reads the teacher's top-k for them once, with the weights of the start of
the step, and adds them to the mini-batches, evenly (:mod:`recipe.hdpo.training.row_dealing`); so a privileged row never
makes an optimizer step of its own. Ranks with fewer rows fill up with dummies of two tokens: every rank runs the same
number of forwards.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.transferqueue_utils import KVBatchMeta, _meta_to_realdata
from verl.workers.engine_workers import TrainingWorker

from recipe.hdpo import transfer
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.training import mini_batch
from recipe.hdpo.training.by_key import RELIANCE, ByKey
from recipe.hdpo.training.fused_head import FusedHead
from recipe.hdpo.training.gradient_norms import term_gradient_norms
from recipe.hdpo.training.loss import HDPOLoss
from recipe.hdpo.training.row_dealing import deal
from recipe.hdpo.training.teacher_pass import hard_labels
from recipe.hdpo.training.teachers import read_teacher
from recipe.hdpo.training.token_record import TokenRecords
from recipe.hdpo.training.update_metrics import average_over_micro_batches, count_tokens
from recipe.hdpo.training.weight_average import WeightAverage


class HDPOActor(TrainingWorker):
    """verl's training worker with privileged rows in its mini-batches."""

    loss_fn: HDPOLoss

    def set_up_hdpo(self, hdpo: HDPOConfig, teacher: TrainingWorker | None, pad_token_id: int) -> None:
        """Called once the model is built.

        Args:
            teacher: the reference worker where the initial model teaches; None for the actor itself.
            pad_token_id: what dummy rows are made of.
        """
        self.hdpo, self.teacher, self.pad_token_id = hdpo, teacher, pad_token_id
        self.average: WeightAverage | None = None
        if hdpo.reads_teacher and hdpo.teacher == "ema":
            with self.engine.eval_mode():
                self.average = WeightAverage(self.engine.module, hdpo.ema_decay)
        if hdpo.fused_head:
            for worker in filter(None, (self, teacher)):
                FusedHead(worker.engine, hdpo)
        self.mini_batch_rows: list[TensorDict] = []
        self.updates = 0

    def train_mini_batch(self, data: TensorDict) -> TensorDict:
        """verl's loop over mini-batches; privileged rows, if the trainer names any, join it."""
        kept: transfer.KeptRows | None = tu.pop(data, key=transfer.KEPT, default=None)
        self.measure_gradients = kept is not None and kept.measure_gradients
        self.loss_fn.factor = 1.0 if kept is None else kept.factor
        self.mini_batch_rows, self.updates, seconds = [], 0, 0.0
        if kept is not None:
            begin = time.perf_counter()
            parts = self._take_share(kept, self._num_mini_batches(data))
            self._read_teacher([row for part in parts for row in part], temperature=data["temperature"])
            self.mini_batch_rows = [_student_batch(part) for part in parts]
            self._start_records(kept)
            seconds = time.perf_counter() - begin
        output = super().train_mini_batch(data)
        found = None if kept is None else self._reliance()
        if kept is not None:
            self._hand_over_records(kept.partition)
        if kept is not None and output is not None:
            tu.get(output, "metrics")["hdpo/timing_s/teacher_pass"] = seconds
            tu.get(output, "metrics")[RELIANCE] = ByKey(found)
        if self.average is not None:
            begin = time.perf_counter()
            with self.engine.eval_mode():
                self.average.update(self.engine.module)
            if output is not None:
                tu.get(output, "metrics")["hdpo/timing_s/ema_update"] = time.perf_counter() - begin
        self.loss_fn.targets.clear()
        return output

    def train_batch(self, data: TensorDict) -> TensorDict:
        """One optimizer step. Mini-batch i of an epoch gets the i-th part of the privileged rows."""
        part = self.mini_batch_rows[self.updates % len(self.mini_batch_rows)] if self.mini_batch_rows else None
        self.updates += 1
        if part is None or len(part) == 0:
            return super().train_batch(data)
        batch = mini_batch.append_privileged_rows(data, part)
        distilled, lengths = count_tokens(mini_batch.row_info(part), self.engine.get_data_parallel_group())
        tu.assign_non_tensor(batch, distillation_use_topk=True, **{mini_batch.NUM_TOKENS: distilled})
        if (of_rollouts := tu.get(batch, "global_token_num")) is not None:
            tu.assign_non_tensor_data(batch, "global_token_num", [*of_rollouts, *lengths])
        norms = term_gradient_norms(self, batch) if self.measure_gradients and self.updates == 1 else {}
        output = super().train_batch(batch)
        if output is not None:
            average_over_micro_batches(tu.get(output, "metrics"))
            tu.get(output, "metrics").update(norms)
        return output

    def _num_mini_batches(self, data: TensorDict) -> int:
        return data.shape[0] * self.engine.get_data_parallel_size() // data["mini_batch_size"]

    def _take_share(self, kept: transfer.KeptRows, num_mini_batches: int) -> list[list[mini_batch.KeptRow]]:
        """This rank's privileged rows by mini-batch.

        Dummies fill a mini-batch up to whole micro-batches and to the same number of rows on every rank.
        """
        engine, config = self.engine, self.engine_config
        dealt = deal(kept.tokens, num_mini_batches, engine.get_data_parallel_size())
        own = [by_rank[engine.get_data_parallel_rank()] for by_rank in dealt]
        # By row id.
        keys = self.row_keys = [kept.keys[i] for part in own for i in part]
        students, teachers, responses, masks = self._fetch_columns(keys, kept.partition)
        found = zip(students, teachers, responses, masks, strict=True)
        step = 1 if config.use_dynamic_bsz else config.micro_batch_size_per_gpu
        dummy = torch.tensor([self.pad_token_id])
        parts, row_id = [], itertools.count()
        for by_rank, part in zip(dealt, own, strict=True):
            size = math.ceil(max(map(len, by_rank)) / step) * step
            real = [mini_batch.KeptRow(*next(found), next(row_id)) for _ in part]
            filler = mini_batch.KeptRow(dummy, dummy, dummy, torch.ones_like(dummy), mini_batch.DUMMY_ROW)
            parts.append(real + [filler] * (size - len(real)))
        return parts

    def _reliance(self) -> dict[str, float]:
        """Of the kept trajectories of all ranks, by key: of those with a token to distill, where a teacher is read."""
        own = {self.row_keys[row_id]: value for row_id, value in self.loss_fn.reliance.pop().items()}
        parts: list[dict[str, float]] = [{} for _ in range(self.engine.get_data_parallel_size())]
        torch.distributed.all_gather_object(parts, own, self.engine.get_data_parallel_group())
        return {key: value for part in parts for key, value in part.items()}

    def _start_records(self, kept: transfer.KeptRows) -> None:
        recorded = set(kept.recorded)
        wanted = {row_id for row_id, key in enumerate(self.row_keys) if key in recorded}
        # On every rank or on none: with sequence parallelism the ranks exchange what is recorded.
        self.loss_fn.records = TokenRecords(wanted) if recorded else None

    def _hand_over_records(self, partition: str) -> None:
        """Put what was recorded beside the trajectories that it is of, by their keys."""
        records, self.loss_fn.records = self.loss_fn.records, None
        # The ranks of a sequence-parallel group hold the same rows.
        if records is None or not records.found or not self.engine.is_mp_src_rank_with_outputs():
            return
        rows = records.rows(self.loss_fn.targets)
        self._put_records([self.row_keys[row_id] for row_id in rows], list(rows.values()), partition)

    def _put_records(self, keys: list[str], rows: list[torch.Tensor], partition: str) -> None:
        fields = tu.list_of_dict_to_tensordict([{transfer.TOKEN_RECORD: row} for row in rows])
        tq.kv_batch_put(keys=keys, fields=fields, partition_id=partition)

    def _fetch_columns(self, keys: list[str], partition: str = transfer.TRAIN) -> list[list[torch.Tensor]]:
        """The fields of privileged rows from TransferQueue, in the order of :data:`transfer.FIELDS`, joined by key."""
        if not keys:
            return [[] for _ in transfer.FIELDS]
        meta = KVBatchMeta(keys=keys, tags=[{}] * len(keys), partition_id=partition, fields=transfer.FIELDS)
        fetched = _meta_to_realdata(meta)
        return [list(fetched[name].unbind()) for name in transfer.FIELDS]

    def _read_teacher(self, kept: list[mini_batch.KeptRow], temperature: float) -> None:
        self.loss_fn.targets.clear()
        if not self.hdpo.reads_teacher:
            own = {r.row_id: r.response[r.response_mask.bool()] for r in kept if r.row_id >= 0}
            self.loss_fn.targets.update(hard_labels(own))
            return
        batch = _batch_of(kept, [r.teacher_prompt for r in kept])
        tu.assign_non_tensor(batch, temperature=temperature)
        self.loss_fn.targets.update(read_teacher(self, batch))

    def save_checkpoint(self, local_path: str, *args: Any, **kwargs: Any) -> None:
        """verl's files, and beside them the average of past weights that teaches."""
        super().save_checkpoint(local_path, *args, **kwargs)
        if self.average is not None:
            self.average.save(local_path)

    def load_checkpoint(self, local_path: str, *args: Any, **kwargs: Any) -> None:
        """What :meth:`save_checkpoint` wrote."""
        super().load_checkpoint(local_path, *args, **kwargs)
        if self.average is not None:
            self.average.load(local_path)


def _student_batch(part: list[mini_batch.KeptRow]) -> TensorDict:
    if not part:
        return TensorDict({}, batch_size=[0])
    return _batch_of(part, [r.student_prompt for r in part])


def _batch_of(rows: list[mini_batch.KeptRow], prompts: list[torch.Tensor]) -> TensorDict:
    columns = ([r.response for r in rows], [r.row_id for r in rows], [r.response_mask for r in rows])
    return mini_batch.sequence_batch(prompts, *columns)
