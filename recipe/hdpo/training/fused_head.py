"""verl's FSDP engine without logits: ``lm_head`` itself computes what the losses read of the vocabulary.

The head's ``forward`` is replaced on the built model. In it FSDP, of either version, has gathered the head's weight,
tied or not, and for its backward gathers it again; the gradient leaves by FSDP's own way. In the place of (1, N, V)
logits the head returns (1, N, F): for each token its label's log-probability, and, as asked, the entropy and the
divergence with its masses. Tokens that predict nothing of a response are never multiplied with the head: their results
are 0, and nobody reads them.

Every pass of the engine goes through it: updates, log-probabilities and the teacher pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils import torch_functional as verl_F

from recipe.hdpo.algorithm.fused_head import fused_head, head_topk
from recipe.hdpo.algorithm.softmax_rows import to_device
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.training import mini_batch
from recipe.hdpo.training.loss import PER_TOKEN, HDPOLoss, columns_of
from recipe.hdpo.training.teacher_pass import TopKCollector
from recipe.hdpo.training.token_slices import own_slice

# What a model's config may do to the logits after the head.
SCALES_OF_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier")
OFF = "set hdpo.fused_head=false and actor_rollout_ref.model.use_fused_kernels=false"


@dataclass
class _MicroBatch:
    """What the head has to know of the micro-batch that the model reads.

    Attributes:
        loss: verl's loss function of this pass, or None.
        rows: of its rows, on the host.
        data: the micro-batch on the device.
        args: labels and temperatures, as ``prepare_model_inputs`` made them.
        names: of the results that the head returned, in their order.
        returned: what it returned.
    """

    loss: Any
    rows: list[mini_batch.RowInfo]
    data: TensorDict | None = None
    args: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    returned: torch.Tensor | None = None


class FusedHead:
    """Takes the place of three methods of an engine, and of its head's ``forward``.

    Args:
        engine: verl's FSDP engine, its model built.
        hdpo: the knobs.

    Raises:
        ValueError: a head that is no plain linear layer, or a model that changes the logits after it.
    """

    def __init__(self, engine: Any, hdpo: HDPOConfig) -> None:
        self.engine, self.hdpo, self.head = engine, hdpo, _plain_head(engine.module)
        self.forward_step_of_verl: Callable = engine.forward_step
        self.prepare_model_inputs_of_verl: Callable = engine.prepare_model_inputs
        self.now: _MicroBatch | None = None
        self.head.forward = self.forward
        engine.forward_step = self.forward_step
        engine.prepare_model_inputs = self.prepare_model_inputs
        engine.prepare_model_outputs = self.prepare_model_outputs

    def forward_step(self, micro_batch: TensorDict, loss_function: Any, forward_only: bool) -> Any:
        """verl's, with the micro-batch's shapes read before it goes to the device."""
        self.now = _MicroBatch(loss_function, mini_batch.row_info(micro_batch))
        try:
            return self.forward_step_of_verl(micro_batch, loss_function, forward_only)
        finally:
            self.now = None

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """verl's; labels and temperatures are noted for the head."""
        assert self.now is not None, "the fused head serves verl's forward_step alone"
        model_inputs, self.now.args = self.prepare_model_inputs_of_verl(micro_batch)
        self.now.data = micro_batch
        return model_inputs, self.now.args

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The head's forward: hidden states (1, N, H), or (B, L, H) of padded rows, to results (1, N, F)."""
        now = self.now
        assert now is not None and now.data is not None, "the fused head serves verl's forward_step alone"
        hidden_NH, weight_VH = _as_linear_would(self._packed(hidden, now), self.head.weight)
        if isinstance(now.loss, TopKCollector):
            self._collect(now.loss, hidden_NH, weight_VH, now)
            now.names, now.returned = (), hidden_NH.new_zeros(1, len(hidden_NH), 0)
        else:
            results = self._results(hidden_NH, weight_VH, now)
            now.names, now.returned = tuple(results), torch.stack(list(results.values()), -1).unsqueeze(0)
        self.version = now.returned._version
        return now.returned

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """In the place of verl's: the head's results as nested tensors, all slices together."""
        now = self.now
        assert now is not None and now.returned is not None
        if output.logits is not now.returned or now.returned._version != self.version:
            raise ValueError(
                f"{type(self.engine.module).__name__} changes its logits after the head, which the fused head cannot "
                f"follow: {OFF}"
            )
        offsets, pad_size = micro_batch["input_ids"].offsets(), output_args.get("pad_size", 0)
        return {
            name: torch.nested.nested_tensor_from_jagged(
                self.engine._gather_and_unpad_packed(values, pad_size), offsets
            )
            for name, values in zip(now.names, output.logits.squeeze(0).unbind(-1), strict=True)
        }

    def _results(self, hidden_NH: torch.Tensor, weight_VH: torch.Tensor, now: _MicroBatch) -> dict[str, torch.Tensor]:
        """By name, (N,) each."""
        assert now.data is not None
        size, device = len(hidden_NH), hidden_NH.device
        _, positions = own_slice(mini_batch.predicting_positions(now.rows, [True] * len(now.rows)), size)
        with_divergence = tu.get_non_tensor_data(now.data, "distillation_use_topk", False)
        entropy = tu.get_non_tensor_data(now.data, "calculate_entropy", False)
        if tu.get_non_tensor_data(now.data, "calculate_sum_pi_squared", False):
            raise NotImplementedError(f"calculate_sum_pi_squared needs logits, and the fused head makes none: {OFF}")
        distilled = now.loss.distilled(now.rows, size) if with_divergence and isinstance(now.loss, HDPOLoss) else None
        options: dict[str, Any] = {"chunk_size": self.hdpo.divergence.chunk_size}
        if distilled is not None:
            # Where the distilled positions stand among those that predict.
            rows = torch.searchsorted(positions, distilled.positions)
            options |= {"teacher": distilled.teacher, "rows_M": rows, **distilled.options}
        at = to_device(positions, device)
        temperature = self._temperature(now)
        found = fused_head(
            hidden_NH.index_select(0, at), weight_VH, now.args["input_ids_rmpad_rolled"][at], entropy=entropy,
            temperature_N=None if temperature is None else temperature[at], **options,
        )  # fmt: skip
        zeros = torch.zeros(size, dtype=torch.float32, device=device)
        results = {"log_probs": zeros.index_put((at,), found.log_probs_N.float())}
        if found.entropy_N is not None:
            results["entropy"] = zeros.index_put((at,), found.entropy_N.float())
        if with_divergence:
            results |= dict.fromkeys(now.loss.outputs if isinstance(now.loss, HDPOLoss) else PER_TOKEN, zeros)
            if distilled is not None and found.divergence is not None:
                columns = zip(now.loss.outputs, columns_of(found.divergence), strict=True)
                where = (at[to_device(rows, device)],)
                results |= {name: zeros.index_put(where, column.float()) for name, column in columns}
        return results

    def _collect(
        self, collector: TopKCollector, hidden_NH: torch.Tensor, weight_VH: torch.Tensor, now: _MicroBatch
    ) -> None:
        temperature = self._temperature(now)

        def read(own: torch.Tensor, labels: torch.Tensor) -> Any:
            at = to_device(own, hidden_NH.device)
            return head_topk(
                hidden_NH.index_select(0, at), weight_VH, self.hdpo.topk, labels_M=labels,
                temperature_M=None if temperature is None else temperature[at],
                chunk_size=self.hdpo.divergence.chunk_size,
            )  # fmt: skip

        assert now.data is not None
        collector.collect(now.data, now.rows, len(hidden_NH), read)

    @staticmethod
    def _packed(hidden: torch.Tensor, now: _MicroBatch) -> torch.Tensor:
        """(N, H), row after row without padding."""
        if "temperature_rmpad" in now.args:
            return hidden.squeeze(0)
        return torch.cat([of_row[: row.length] for of_row, row in zip(hidden, now.rows, strict=True)])

    @staticmethod
    def _temperature(now: _MicroBatch) -> torch.Tensor | None:
        """Of every token, (N,); None where it is 1."""
        assert now.data is not None
        if now.args["temperature_is_one"]:
            return None
        if "temperature_rmpad" in now.args:
            found = now.args["temperature_rmpad"]
        else:
            found = verl_F.expand_as_nested(now.args["temperature"], now.data["input_ids"]).values()
        return found.clamp(min=1e-8)


def _plain_head(module: Any) -> Any:
    """The model's head, a linear layer without bias whose output the model hands on as it is."""
    head = module.get_output_embeddings()
    head = getattr(head, "_fsdp_wrapped_module", head)
    if not isinstance(head, torch.nn.Linear) or type(head).forward is not torch.nn.Linear.forward:
        raise ValueError(f"the model's head is a {type(head).__name__}, which the fused head cannot replace: {OFF}")
    if head.bias is not None:
        raise ValueError(f"the model's head has a bias, which the fused head lacks: {OFF}")
    config = module.config.get_text_config()
    for name in SCALES_OF_LOGITS:
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise ValueError(
                f"the model has {name}={getattr(config, name)}: it changes its logits after the head, which the fused "
                f"head cannot follow: {OFF}"
            )
    return head


def _as_linear_would(hidden: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in the dtype that a linear layer would multiply them in."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return hidden.to(dtype), weight.to(dtype)
