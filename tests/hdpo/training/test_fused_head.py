"""The actor with a fused head: the same gradients as one sequence at a time by autograd, and no logits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import open_dict
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)
from verl.utils import tensordict_utils as tu
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine_workers import ActorRolloutRefWorker

from recipe.hdpo.training import actor as actor_module
from recipe.hdpo.training import mini_batch
from recipe.hdpo.training import worker as worker_module
from recipe.hdpo.training.actor import HDPOActor
from recipe.hdpo.training.fused_head import FusedHead
from recipe.hdpo.training.worker import HDPOWorker
from tests.hdpo.composed_config import composed
from tests.hdpo.training.brute_force import (
    LAMBDA,
    Run,
    assert_same,
    brute_force,
    make_job,
    make_kept,
    make_rollouts,
    response_logits,
)
from tests.hdpo.training.fsdp_ranks import VOCABULARY, Row, hdpo_config, make_model

FUSED = {"fused_head": True}
SPLITS = {
    "1 rank, packed, one micro-batch": dict(ranks=1, max_tokens=4096),
    "1 rank, padded, 2 rows a micro-batch": dict(ranks=1, packed=False, dynamic=False, micro_batch_size=2),
    "2 ranks, packed, many micro-batches, chunks of 3 tokens": dict(
        ranks=2, max_tokens=32, hdpo={"divergence.chunk_size": 3}
    ),
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_gradient_equals_brute_force_however_the_batch_is_cut(run: Run, model_dir: str, split: dict) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    options = {"hdpo": {}} | split
    ranks, hdpo = options.pop("ranks"), FUSED | options.pop("hdpo")
    expected, jsd = brute_force(model_dir, rollouts, kept)
    result = run(make_job(model_dir, ranks, rollouts, kept, hdpo=hdpo, **options))
    assert_same(result.gradients[0], expected)
    assert result.metrics["hdpo/jsd_mean"][0] == pytest.approx(jsd, rel=1e-5)
    assert result.metrics["hdpo/loss_distillation"][0] == pytest.approx(LAMBDA * jsd, rel=1e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_matrix_that_embeds_and_unembeds_gets_both_gradients(run: Run, tmp_path: Path, ranks: int) -> None:
    tied = make_model(tmp_path / "tied", tied=True)
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    expected, _ = brute_force(tied, rollouts, kept)
    assert_same(run(make_job(tied, ranks, rollouts, kept, max_tokens=32, hdpo=FUSED)).gradients[0], expected)


def test_the_head_returns_no_logits_in_any_pass(run: Run, model_dir: str) -> None:
    """The teacher pass, an update, and the measurement of both norms, which are those of whole logits."""
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    of = dict(max_tokens=32, measure_gradients=True, actor={"entropy_coeff": 0.1}, temperature=0.7)
    plain = run(make_job(model_dir, 2, rollouts, kept, **of))
    fused = run(make_job(model_dir, 2, rollouts, kept, hdpo=FUSED, **of))
    assert plain.head_widths == {VOCABULARY}
    # Log-probability, entropy, divergence and its two masses; nothing in the teacher pass.
    assert fused.head_widths == {0, 5}
    assert_same(fused.gradients[0], plain.gradients[0])
    for name in ("hdpo/grad_norm_grpo", "hdpo/grad_norm_distillation", "hdpo/jsd_mean", "hdpo/student_topk_mass"):
        assert fused.metrics[name][0] == pytest.approx(plain.metrics[name][0], rel=1e-4) and fused.metrics[name][0] > 0


def test_one_kept_row_on_two_ranks_and_a_frozen_teacher(run: Run, model_dir: str, tmp_path: Path) -> None:
    """One rank has the kept row and the other a dummy; the reference model's head is fused too."""
    frozen = make_model(tmp_path / "frozen", seed=7)
    rollouts, kept = make_rollouts(3, 4), make_kept(4, 1)
    expected, _ = brute_force(model_dir, rollouts, kept, teacher_dir=frozen)
    options = {"max_tokens": 40, "frozen_dir": frozen, "hdpo": FUSED | {"teacher": "frozen"}}
    assert_same(run(make_job(model_dir, 2, rollouts, kept, **options)).gradients[0], expected)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "cross_entropy"])
def test_every_divergence_has_the_gradient_of_whole_logits(run: Run, model_dir: str, kind: str) -> None:
    rollouts, kept = [Row(r.prompt, r.response) for r in make_rollouts(1, 2)], make_kept(2, 3)
    options: dict[str, Any] = {"divergence.kind": kind}
    plain = run(make_job(model_dir, 1, rollouts, kept, hdpo=options))
    fused = run(make_job(model_dir, 1, rollouts, kept, hdpo=options | FUSED))
    assert_same(fused.gradients[0], plain.gradients[0])
    assert max(float(g.abs().max()) for g in fused.gradients[0].values()) > 1e-3


def test_rollout_rows_alone_have_the_gradient_of_plain_grpo(run: Run, model_dir: str) -> None:
    rollouts = make_rollouts(1, 4)
    expected, _ = brute_force(model_dir, rollouts, [])
    result = run(make_job(model_dir, 2, rollouts, [], max_tokens=24, hdpo=FUSED))
    assert_same(result.gradients[0], expected)
    assert result.head_widths == {1}


def _engine(model: Any) -> Any:
    """verl's engine with a model that is not sharded, for its forward step; no group of ranks is needed."""
    engine = FSDPEngineWithLMHead.__new__(FSDPEngineWithLMHead)
    engine.module, engine.use_ulysses_sp, engine.pad_to_length = model, False, False
    engine._autocast_dtype = torch.float32
    return engine


# Prompt and response.
ROWS = [(torch.tensor([3, 4]), torch.tensor([6, 7])), (torch.tensor([5]), torch.tensor([8, 9, 2]))]


def _batch(packed: bool, temperature: float) -> Any:
    prompts, responses = zip(*ROWS, strict=True)
    batch = mini_batch.sequence_batch(prompts, responses, [mini_batch.ROLLOUT_ROW] * 2)
    batch.pop(mini_batch.ROW_INFO)
    tu.assign_non_tensor(batch, use_remove_padding=packed, calculate_entropy=True, temperature=temperature)
    return batch


def _fused(model: Any) -> Any:
    engine = _engine(model)
    FusedHead(engine, hdpo_config(**FUSED))
    return engine


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_a_pass_without_a_loss_gives_log_probabilities_and_entropies_of_responses(
    model_dir: str, packed: bool, temperature: float
) -> None:
    """As before an update, of rows that verl made itself; a position that predicts no token of a response has 0."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="sdpa")
    with torch.no_grad():
        rows = [response_logits(model, prompt.tolist(), response.tolist()) for prompt, response in ROWS]
        _, output = _fused(model).forward_step(_batch(packed, temperature), None, True)
    log_q = torch.cat(rows).div(temperature).log_softmax(-1)
    labels = torch.cat([response for _, response in ROWS])
    expected = {"log_probs": log_q.gather(-1, labels[:, None])[:, 0], "entropy": -(log_q.exp() * log_q).sum(-1)}
    for name, values in expected.items():
        found = output["model_output"][name].values()
        torch.testing.assert_close(found[[1, 2, 4, 5, 6]], values, rtol=1e-5, atol=1e-6)
        assert found[[0, 3, 7]].abs().max() == 0.0


def test_a_model_that_changes_its_logits_after_the_head_is_refused(model_dir: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="sdpa")
    forward = model.forward

    def doubled(**inputs: Any) -> Any:
        output = forward(**inputs)
        output.logits = output.logits * 2
        return output

    model.forward = doubled
    with pytest.raises(ValueError, match=r"Qwen2ForCausalLM changes its logits after the head.*hdpo\.fused_head=false"):
        _fused(model).forward_step(_batch(True, 1.0), None, True)


def test_a_quantity_that_needs_logits_is_refused(model_dir: str) -> None:
    batch = _batch(True, 1.0)
    tu.assign_non_tensor(batch, calculate_sum_pi_squared=True)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="sdpa")
    with pytest.raises(NotImplementedError, match="calculate_sum_pi_squared needs logits"):
        _fused(model).forward_step(batch, None, True)


SMALL = dict(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)


def _with_adapter_on_the_head() -> Any:
    model = GraniteForCausalLM(GraniteConfig(**SMALL, num_key_value_heads=1, tie_word_embeddings=False))
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["lm_head"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, num_key_value_heads=1, head_dim=8)),
            "final_logit_softcapping=30.0",
        ),
        (lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=8.0)), "logits_scaling=8.0"),
        (lambda: PhiForCausalLM(PhiConfig(**SMALL)), "head has a bias"),
        (_with_adapter_on_the_head, "head is a Linear"),
    ],
    ids=["Gemma 2", "Granite", "Phi", "adapter on the head"],
)
def test_a_head_that_is_more_than_a_product_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _fused(make())


@pytest.mark.parametrize("teacher", ["drifting", "frozen"])
@pytest.mark.parametrize(
    ("overrides", "fused"),
    [((), False), (("hdpo.fused_head=true",), True), (("actor_rollout_ref.model.use_fused_kernels=true",), True)],
    ids=["neither", "hdpo.fused_head", "use_fused_kernels"],
)
def test_verls_switch_for_fused_kernels_means_the_recipes_fused_head_in_actor_and_reference(
    monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], fused: bool, teacher: str
) -> None:
    """verl builds the model as if its own kernels were off."""
    config = composed(f"hdpo.teacher={teacher}", *overrides)
    seen, engines = [], []
    monkeypatch.setattr(
        ActorRolloutRefWorker, "init_model", lambda self: seen.append(self.config.model.use_fused_kernels)
    )
    for module in (actor_module, worker_module):
        monkeypatch.setattr(module, "FusedHead", lambda engine, hdpo: engines.append(engine))
    monkeypatch.setattr(HDPOWorker, "set_loss_fn", lambda self, loss_fn: None)
    worker, actor = HDPOWorker.__new__(HDPOWorker), HDPOActor.__new__(HDPOActor)
    actor.engine_config, actor.engine = object(), SimpleNamespace()
    actor.model_config = SimpleNamespace(tokenizer=SimpleNamespace(eos_token_id=3))
    reference, loss = SimpleNamespace(engine="the reference's"), SimpleNamespace(keywords={"config": "the actor's"})
    with open_dict(config):  # as the trainer does
        config.actor_rollout_ref.hdpo = config.hdpo
    vars(worker).update({"config": config.actor_rollout_ref, "actor": actor, "ref": reference, "loss_fn": loss})
    worker.init_model()
    assert seen == [False] and engines == ([actor.engine, "the reference's"] if fused else [])
