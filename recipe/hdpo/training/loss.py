"""L = L_GRPO + lambda * L_JSD, in the two calls that verl's engine makes of a loss function.

    L_JSD = (1 / N_tok) * sum over kept trajectories, sum over t of D(pi_T(. | y_<t) || pi_theta(. | y_<t))

N_tok counts the distilled tokens of the whole mini-batch over all data-parallel ranks; a clip and weights of tokens
(``algorithm/token_controls.py``) change what a token adds, and never the divisor. FSDP averages gradients over
ranks, so every rank scales its part by their number, as verl does for its own terms.

For every micro-batch the engine calls first with ``student_logits``, and takes back per-token tensors; then with
``model_output``, and takes back the loss. Rollout rows go through verl's ``ppo_loss`` untouched and alone: privileged
rows change neither its denominators nor its padding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from verl.utils import torch_functional as verl_F
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss

from recipe.hdpo.algorithm.divergence import Divergence, topk_divergence
from recipe.hdpo.algorithm.softmax_rows import to_device
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.training import mini_batch
from recipe.hdpo.training.token_controls import RelianceGate, control_tokens
from recipe.hdpo.training.token_record import TOPS, TokenRecords
from recipe.hdpo.training.token_slices import own_slice

# Per-token outputs, in the order of a Divergence.
PER_TOKEN = DIVERGENCE, STUDENT_MASS, TEACHER_MASS = "hdpo_divergence", "hdpo_student_mass", "hdpo_teacher_mass"
# And those of its tops, where they are asked for.
TOP_OUTPUTS = tuple(f"hdpo_top_{i}" for i in range(3 * TOPS))


class Distilled(NamedTuple):
    """The distilled tokens of a slice of packed tokens.

    Attributes:
        positions: of the M logits that predict them, ascending, on the host.
        teacher: M rows.
        options: kind, beta and chunk size of the divergence.
    """

    positions: torch.Tensor
    teacher: TeacherTopK
    options: dict[str, Any]


@dataclass
class HDPOLoss:
    """verl's loss function for one actor worker.

    Attributes:
        actor_config: verl's actor config, read by its policy loss.
        hdpo: the recipe's knobs.
        targets: teacher top-k of the privileged rows that this rank holds, by row id.
        factor: what lambda is multiplied by (``algorithm/coefficient.py``).
        terms: which terms enter the loss; "grpo" or "distillation" alone serve to measure their gradients.
        reliance: of the trajectories that went through it (:class:`~recipe.hdpo.training.token_controls.RelianceGate`).
        records: takes down what the forward says of single tokens; None where nobody reads it.
    """

    actor_config: ActorConfig
    hdpo: HDPOConfig
    targets: dict[int, TeacherTopK] = field(default_factory=dict)
    factor: float = 1.0
    terms: str = "both"
    records: TokenRecords | None = None

    def __post_init__(self) -> None:
        self.reliance = RelianceGate(self.hdpo.privileged.gate.reliance)

    def __call__(
        self,
        model_output: dict[str, torch.Tensor] | None = None,
        data: TensorDict | None = None,
        dp_group: Any = None,
        student_logits: torch.Tensor | None = None,
    ) -> Any:
        """Called by verl's engine, in one of two ways for every micro-batch.

        ``prepare_model_outputs`` calls with ``student_logits`` and ``data``, and gets per-token tensors;
        ``forward_step`` then calls with ``model_output``, ``data`` and ``dp_group``, and gets the loss.

        Args:
            model_output: nested per-token tensors, ``log_probs`` and what the first call returned.
            data: the micro-batch.
            dp_group: data-parallel group, handed to verl's loss.
            student_logits: shape (1, N, V), N tokens of the packed micro-batch.

        Returns:
            with ``student_logits``: per-token tensors of shape (1, N), 0 where nothing is distilled;
            otherwise: the scalar loss and its metrics.
        """
        assert data is not None
        if student_logits is not None:
            return self._divergence_per_token(student_logits, data)
        assert model_output is not None
        if mini_batch.ROW_INFO not in data:
            return ppo_loss(self.actor_config, model_output, data, dp_group)
        return self._joint_loss(model_output, data, dp_group)

    def distilled(self, info: Sequence[mini_batch.RowInfo], size: int) -> Distilled | None:
        """What is distilled of a micro-batch in this rank's slice of ``size`` packed tokens; None for nothing."""
        positions, privileged = mini_batch.response_positions(info)
        is_own, positions = own_slice(positions, size)
        if len(positions) == 0:
            return None
        whole = concatenate_targets([self.targets[row.row_id] for row in privileged])
        teacher = TeacherTopK(ids=whole.ids[is_own], log_probs=whole.log_probs[is_own])
        options = self.hdpo.divergence
        # Hard labels are a teacher with all its mass on one token.
        kind: Any = "forward_kl" if options.kind == "cross_entropy" else options.kind
        settings = {"kind": kind, "beta": options.beta, "chunk_size": options.chunk_size}
        return Distilled(positions, teacher, settings if self.records is None else settings | {"tops": TOPS})

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the per-token outputs, in the order of :func:`columns_of`."""
        return PER_TOKEN if self.records is None else PER_TOKEN + TOP_OUTPUTS

    def _divergence_per_token(self, student_logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        logits_NV = student_logits.squeeze(0)
        zeros = torch.zeros(logits_NV.shape[0], dtype=torch.float32, device=logits_NV.device)
        found = self.distilled(mini_batch.row_info(data), len(logits_NV))
        if found is None:
            # No buffer of the logits' size for a gradient that is 0.
            return {name: zeros.unsqueeze(0) for name in self.outputs}
        protect = log_prob_backward_overwrites_logits(logits_NV)
        result = topk_divergence(logits_NV, found.teacher, found.positions, protect_logits=protect, **found.options)
        positions = to_device(found.positions, logits_NV.device)
        per_token = zip(self.outputs, columns_of(result), strict=True)
        return {name: zeros.index_put((positions,), v.float()).unsqueeze(0) for name, v in per_token}

    def _joint_loss(
        self, model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        scale = data["dp_size"] / max(data[mini_batch.NUM_TOKENS], 1)
        per_token, log_probs = model_output[DIVERGENCE].values(), model_output["log_probs"].values()
        controlled, sums = control_tokens(
            per_token, log_probs, mini_batch.row_info(data), self.targets, self.hdpo.divergence, self.reliance
        )
        divergence = controlled.sum() * scale
        if self.records is not None:
            columns = [model_output[name].values() for name in (*self.outputs, "log_probs")]
            self.records.take(mini_batch.row_info(data), columns)
        grpo, metrics = self._policy_loss(model_output, data, dp_group)
        distillation = self.hdpo.distillation_loss_coef * self.factor * divergence
        loss = {
            "both": grpo + distillation,
            "grpo": grpo + 0.0 * divergence,
            "distillation": 0.0 * grpo + distillation,
        }
        means = {
            "hdpo/jsd_mean": per_token.sum() * scale,
            "hdpo/loss_distillation": distillation,
            "hdpo/student_topk_mass": model_output[STUDENT_MASS].values().sum() * scale,
            "hdpo/teacher_topk_mass": model_output[TEACHER_MASS].values().sum() * scale,
            **{name: total * scale for name, total in sums.items()},
        }
        # One wait for the accelerator, not four.
        values = torch.stack([value.detach() for value in means.values()]).tolist()
        metrics |= {k: Metric(value=v, aggregation=AggregationType.SUM) for k, v in zip(means, values, strict=True)}
        return loss[self.terms], metrics

    def _policy_loss(
        self, model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """verl's loss of the micro-batch's rollout rows.

        A micro-batch of privileged rows alone goes through it whole, with all-zero masks, as verl's padding rows do:
        its terms are zeros that are connected to the graph. Means over its tokens would be 0 / 0, so they are left out.
        """
        is_rollout = [row.row_id == mini_batch.ROLLOUT_ROW for row in mini_batch.row_info(data)]
        has_rollouts = any(is_rollout)
        if has_rollouts and not all(is_rollout):
            wanted = {k: v for k, v in model_output.items() if k in ("log_probs", "entropy", "sum_pi_squared")}
            data, model_output = mini_batch.rollout_rows(data, wanted)
        loss, metrics = ppo_loss(self.actor_config, model_output, data, dp_group)
        for name, metric in list(metrics.items()):
            # Plain numbers, so that ranks may hold different numbers of them; the actor averages them.
            if isinstance(metric, Metric) and metric.aggregation is AggregationType.MEAN:
                del metrics[name]
                if has_rollouts:
                    metrics[name] = metric.aggregate()
        return loss, metrics


def columns_of(result: Divergence) -> list[torch.Tensor]:
    """The fields of a Divergence, (M,) each, its tops column by column."""
    tops = () if result.tops is None else result.tops.unbind(1)
    return [result.per_token, result.student_mass, result.teacher_mass, *tops]


def concatenate_targets(targets: list[TeacherTopK]) -> TeacherTopK:
    """The top-k of several rows one after the other, where they are: on the host."""
    ids, log_probs = torch.cat([t.ids for t in targets]), torch.cat([t.log_probs for t in targets])
    return TeacherTopK(ids=ids, log_probs=log_probs)


def log_prob_backward_overwrites_logits(logits: torch.Tensor) -> bool:
    """Whether verl's log-prob backward writes its gradient into the logits buffer before ours has read it.

    verl calls flash-attention's cross entropy with ``inplace_backward=True``. Its node is made after ours, so autograd
    runs it first, and the kernel does not bump the tensor's version counter: nothing would raise.
    """
    disabled = os.environ.get("VERL_DISABLE_FLASH_ATTN_CE", "0") == "1"
    return logits.is_cuda and verl_F.FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE and not disabled
