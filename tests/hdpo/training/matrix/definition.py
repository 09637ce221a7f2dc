"""What a case's optimizer steps must change, computed on a plain model without an engine.

The policy loss is verl's own, handed all rollouts of a mini-batch at once; L_JSD is the mean of JSD_k by
``algorithm/reference.py``, one position at a time.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recipe.hdpo.algorithm.reference import jsd
from tests.hdpo.training.brute_force import LAMBDA, TOPK, make_kept, make_rollouts, response_logits
from tests.hdpo.training.fsdp_ranks import Row, make_actor_config, make_model
from tests.hdpo.training.matrix.cases import CUTS, EMBEDDINGS, OBJECTIVES, STEPS, Case

Model = Callable[[torch.Tensor], Any]
# Rollouts, of which a mini-batch has all or the half.
ROLLOUTS = 8
REFERENCE_LOG_PROB, OLD_LOG_PROB = -2.5, -2.0


class Files:
    """The models of all cases, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @functools.cached_property
    def models(self) -> dict[str, str]:
        """Folder of the first weights, by embeddings."""
        return {n: make_model(self.folder / n, tied=tied) for n, tied in EMBEDDINGS.items()}

    @functools.cached_property
    def frozen(self) -> dict[str, str]:
        """Folder of another model, the frozen teacher: it is told apart from the first weights."""
        return {n: make_model(self.folder / f"frozen {n}", seed=7, tied=tied) for n, tied in EMBEDDINGS.items()}

    @functools.cached_property
    def adapters(self) -> dict[str, str]:
        """Folder of an adapter that has been trained, by embeddings: with it the model is another one."""
        return {n: make_adapter(model, self.folder / f"adapter {n}") for n, model in self.models.items()}

    def teacher_dir(self, case: Case) -> str | None:
        return self.frozen[case.embeddings] if case.teacher == "frozen" else None


def make_adapter(model_dir: str, folder: Path) -> str:
    """A random LoRA adapter of rank 4 on all linear layers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    return str(folder)


def make_rows(case: Case) -> tuple[list[list[Row]], list[list[Row]]]:
    """Rollouts and kept trajectories by mini-batch."""
    rollouts, kept = make_rollouts(1, ROLLOUTS), make_kept(2, 3)
    if OBJECTIVES[case.objective].importance:
        for i, row in enumerate(rollouts):
            row.importance = 0.5 + 0.2 * i
    size = ROLLOUTS // STEPS[case.steps][0]
    by_kept = torch.arange(len(kept)).tensor_split(STEPS[case.steps][0])
    return [rollouts[i : i + size] for i in range(0, ROLLOUTS, size)], [[kept[i] for i in p] for p in by_kept]


def by_rank(rows: list[Row], ranks: int) -> list[list[Row]]:
    share = len(rows) // ranks
    return [rows[r * share : (r + 1) * share] for r in range(ranks)]


@dataclass
class Expected:
    """What SGD at this rate changes (new weights minus old), and what its first step says."""

    change: dict[str, torch.Tensor]
    rate: float
    jsd: float
    norms: dict[str, float]


def rounding(case: Case, files: Files) -> float:
    """How far computing in bf16 alone moves the update of a bf16 case, as a share of it. Usually some percent; more
    where it moves a ratio over the edge of the clip, so that a later step takes other tokens."""
    rounded, plain = expected(case, files), expected(dataclasses.replace(case, precision="float32"), files)
    own_W, plain_W = (torch.cat([g.flatten() / e.rate for g in e.change.values()]) for e in (rounded, plain))
    return float((own_W - plain_W).norm() / plain_W.norm())


@functools.cache
def plain_model(model_dir: str, adapter_dir: str | None) -> torch.nn.Module:
    """A model with its adapter, if any. Nobody changes it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter_dir, is_trainable=True) if adapter_dir else model


class InHalf:
    """A model that computes in bf16, as verl's engine does: every sequence reads rounded copies of float32 weights, and
    the gradients of the copies are added up in float32.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def __call__(self, input_ids: torch.Tensor) -> Any:
        rounded = {n: p.bfloat16() for n, p in self.model.named_parameters()}
        with torch.autocast("cpu", torch.bfloat16):
            return torch.func.functional_call(self.model, rounded, (input_ids,))


def expected(case: Case, files: Files) -> Expected:
    """The update by definition."""
    has_adapter = "adapter" in case.teacher
    model = copy.deepcopy(
        plain_model(files.models[case.embeddings], files.adapters[case.embeddings] if has_adapter else None)
    )
    rollouts, kept = make_rows(case)
    teacher_dir = files.teacher_dir(case)
    in_precision = InHalf if case.precision == "bf16" else lambda model: model
    student = in_precision(model)
    teacher = in_precision(plain_model(teacher_dir, None)) if teacher_dir else student
    with torch.no_grad(), model.disable_adapter() if case.teacher == "adapter, frozen" else nullcontext():
        teacher_logits = [[response_logits(teacher, r.teacher_prompt, r.response) for r in part] for part in kept]
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    first = {n: p.detach().clone() for n, p in weights.items()}
    found: list[tuple[float, dict[str, float]]] = []
    rate = 0.0
    for step in range(STEPS[case.steps][0] * STEPS[case.steps][1]):
        part = step % len(rollouts)
        distillation = mean_jsd(student, kept[part], teacher_logits[part])
        terms = {"grpo": policy_loss(student, rollouts[part], case), "distillation": LAMBDA * distillation}
        gradients = {
            name: torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            for name, loss in terms.items()
        }
        norms = {n: float(torch.cat([g.flatten() for g in parts]).norm()) for n, parts in gradients.items()}
        found.append((float(distillation.detach()), norms))
        updates = [sum(both) for both in zip(*gradients.values(), strict=True)]
        # The first step moves all weights together by this much: far above rounding, and no step leaps.
        rate = rate or 0.1 / float(torch.cat([u.flatten() for u in updates]).norm())
        with torch.no_grad():
            for weight, update in zip(weights.values(), updates, strict=True):
                weight -= rate * update
    change = {n: p.detach() - first[n] for n, p in weights.items()}
    return Expected(change, rate, *found[0])


def mean_jsd(model: Model, kept: list[Row], teacher_logits: list[torch.Tensor]) -> torch.Tensor:
    """L_JSD of a mini-batch's kept trajectories."""
    students = [response_logits(model, row.prompt, row.response) for row in kept]
    pairs = zip(torch.cat(students).float(), torch.cat(teacher_logits).float(), strict=True)
    return torch.stack([jsd(student_V, teacher_V, TOPK) for student_V, teacher_V in pairs]).mean()


def policy_loss(model: Model, rows: list[Row], case: Case) -> torch.Tensor:
    """verl's loss of a mini-batch, all at once. Losses that are means over a micro-batch are given these, as verl cuts
    them, and are averaged over ranks."""
    objective = OBJECTIVES[case.objective]
    parts, ranks = [rows], 1
    if objective.per_micro_batch:
        size, ranks = CUTS[case.cut].get("micro_batch_size", 1), case.dealt_to
        parts = [share[i : i + size] for share in by_rank(rows, ranks) for i in range(0, len(share), size)]
    config = make_actor_config(objective.actor, len(rows))
    config.global_batch_info.update(
        dp_size=ranks,
        batch_num_tokens=sum(len(row.response) for row in rows),
        global_batch_size=len(rows),
        loss_scale_factor=config.loss_scale_factor,
    )
    is_rounded = case.precision == "bf16" and case.head == "logits"
    return sum(_verls_loss(model, part, config, is_rounded) for part in parts) / ranks


def _verls_loss(model: Model, rows: list[Row], config: Any, is_rounded: bool) -> torch.Tensor:
    """``is_rounded``: log-probabilities and entropies are rounded to bf16, as verl's are without flash attention."""
    from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn, kl_penalty
    from verl.utils.torch_functional import entropy_from_logits

    def padded(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)

    def per_token(values: Iterable[float]) -> torch.Tensor:
        return padded(torch.full((len(row.response),), v) for row, v in zip(rows, values, strict=True))

    logits = [response_logits(model, row.prompt, row.response) for row in rows]
    logits = logits if is_rounded else [part.float() for part in logits]
    log_probs = [part.log_softmax(-1) for part in logits]
    picked = padded(
        lp.gather(-1, torch.tensor(row.response)[:, None])[:, 0] for lp, row in zip(log_probs, rows, strict=True)
    )
    mask = per_token([1.0] * len(rows)).bool()
    mode = config.policy_loss.loss_mode
    loss, _ = get_policy_loss_fn("vanilla" if mode == "hdpo" else mode)(
        old_log_prob=per_token(OLD_LOG_PROB + row.old_log_prob_shift for row in rows),
        log_prob=picked,
        advantages=per_token(row.advantage for row in rows),
        response_mask=mask,
        loss_agg_mode=config.loss_agg_mode,
        config=config,
        rollout_is_weights=None if rows[0].importance is None else per_token(row.importance for row in rows),
    )
    settings = dict(loss_mask=mask, loss_agg_mode=config.loss_agg_mode, **config.global_batch_info)
    if config.entropy_coeff:
        entropy = padded(entropy_from_logits(part) for part in logits)
        loss = loss - config.entropy_coeff * agg_loss(entropy, **settings)
    if config.use_kl_loss:
        divergence = kl_penalty(picked, per_token([REFERENCE_LOG_PROB] * len(rows)), config.kl_loss_type)
        loss = loss + config.kl_loss_coef * agg_loss(divergence, **settings)
    return loss
