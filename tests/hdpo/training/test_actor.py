"""The update on real FSDP2 ranks against a plain model, one sequence at a time, by autograd."""

import dataclasses

import pytest
import torch

from tests.hdpo.training.brute_force import (
    LAMBDA,
    TOPK,
    Run,
    assert_same,
    brute_force,
    make_job,
    make_kept,
    make_rollouts,
    response_logits,
)
from tests.hdpo.training.fsdp_ranks import Row

SPLITS = {
    "1 rank, packed, one micro-batch": dict(ranks=1, max_tokens=4096),
    "1 rank, packed, many micro-batches": dict(ranks=1, max_tokens=32),
    "1 rank, padded, 2 rows a micro-batch": dict(ranks=1, packed=False, dynamic=False, micro_batch_size=2),
    "2 ranks, packed, many micro-batches": dict(ranks=2, max_tokens=32),
    "2 ranks, padded, 1 row a micro-batch": dict(ranks=2, packed=False, dynamic=False, micro_batch_size=1),
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_gradient_equals_brute_force_however_the_batch_is_cut(run: Run, model_dir: str, split: dict) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    options = dict(split)
    ranks = options.pop("ranks")
    expected, jsd = brute_force(model_dir, rollouts, kept)
    result = run(make_job(model_dir, ranks, rollouts, kept, **options))
    assert len(result.gradients) == 1
    assert_same(result.gradients[0], expected)
    assert result.metrics["hdpo/jsd_mean"][0] == pytest.approx(jsd, rel=1e-5)
    assert result.metrics["hdpo/loss_distillation"][0] == pytest.approx(LAMBDA * jsd, rel=1e-5)


def test_a_kept_row_on_one_rank_only_neither_hangs_nor_changes_the_gradient(run: Run, model_dir: str) -> None:
    rollouts, kept = make_rollouts(3, 4), make_kept(4, 1)
    expected, _ = brute_force(model_dir, rollouts, kept)
    result = run(make_job(model_dir, 2, rollouts, kept, max_tokens=40))
    assert_same(result.gradients[0], expected)


@pytest.mark.parametrize("others", [0, 2])
def test_a_privileged_row_above_the_token_budget_on_one_rank_has_its_gradient(
    run: Run, model_dir: str, others: int
) -> None:
    """Of the teacher pass alone: every trained row fits."""
    rollouts, [long, *rest] = make_rollouts(3, 4), make_kept(4, 1 + others)
    kept = [dataclasses.replace(long, teacher_prompt=(long.teacher_prompt * 5)[:30]), *rest]
    expected, _ = brute_force(model_dir, rollouts, kept)
    result = run(make_job(model_dir, 2, rollouts, kept, max_tokens=24))
    assert_same(result.gradients[0], expected)


def test_all_prompts_cliffs_leave_the_distillation_gradient_alone(run: Run, model_dir: str) -> None:
    rollouts, kept = [Row(r.prompt, r.response) for r in make_rollouts(5, 4)], make_kept(6, 2)
    expected, _ = brute_force(model_dir, rollouts, kept)
    result = run(make_job(model_dir, 2, rollouts, kept))
    assert_same(result.gradients[0], expected)
    assert max(float(g.abs().max()) for g in result.gradients[0].values()) > 1e-3


def test_all_prompts_cliffs_and_nothing_kept_give_a_zero_gradient(run: Run, model_dir: str) -> None:
    rollouts = [Row(r.prompt, r.response) for r in make_rollouts(5, 4)]
    result = run(make_job(model_dir, 2, rollouts, []))
    assert all(float(g.abs().max()) == 0.0 for g in result.gradients[0].values())


@pytest.mark.parametrize(
    "actor",
    [
        {"loss_agg_mode": "seq-mean-token-sum-norm"},
        {"loss_agg_mode": "seq-mean-token-mean"},
        {"entropy_coeff": 0.1},
        {"use_kl_loss": True, "kl_loss_coef": 0.5, "kl_loss_type": "low_var_kl"},
        {"clip_ratio_high": 0.28},
        {"policy_loss": {"loss_mode": "gspo"}},
    ],
    ids=str,
)
def test_privileged_rows_add_to_the_policy_gradient_and_change_nothing_of_it(
    run: Run, model_dir: str, actor: dict
) -> None:
    """gradient(rollouts + kept) - gradient(rollouts) is the distillation gradient, whatever verl's loss is."""
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 2)
    silent = [Row(r.prompt, r.response) for r in rollouts]
    both = run(make_job(model_dir, 1, rollouts, kept, actor=actor, max_tokens=4096)).gradients[0]
    alone = run(make_job(model_dir, 1, rollouts, [], actor=actor, max_tokens=4096)).gradients[0]
    distillation, _ = brute_force(model_dir, silent, kept)
    assert_same({n: both[n] - alone[n] for n in both}, distillation)


@pytest.mark.parametrize(
    "options",
    [
        {"divergence.kind": "forward_kl"},
        {"divergence.kind": "reverse_kl"},
        {"divergence.beta": 0.2},
        {"divergence.chunk_size": 1},
        {"topk": None},
        {"topk": 2},
    ],
    ids=str,
)
def test_every_knob_of_the_divergence_reaches_the_loss(run: Run, model_dir: str, options: dict) -> None:
    from transformers import AutoModelForCausalLM

    from recipe.hdpo.algorithm.divergence import topk_divergence
    from recipe.hdpo.algorithm.teacher_topk import teacher_topk

    rollouts, kept = make_rollouts(1, 2), make_kept(2, 2)
    job = make_job(model_dir, 1, rollouts, kept, hdpo={"topk": TOPK, **options})
    model, values = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32), []
    for row in kept:
        with torch.no_grad():
            teacher = teacher_topk(response_logits(model, row.teacher_prompt, row.response), job.hdpo["topk"])
            result = topk_divergence(
                response_logits(model, row.prompt, row.response),
                teacher,
                torch.arange(len(row.response)),
                kind=options.get("divergence.kind", "jsd"),
                beta=options.get("divergence.beta", 0.5),
            )
        values.append(result.per_token)
    assert run(job).metrics["hdpo/jsd_mean"][0] == pytest.approx(torch.cat(values).mean().item(), rel=1e-4)


def test_cross_entropy_is_minus_log_q_of_the_kept_tokens_and_reads_no_teacher(run: Run, model_dir: str) -> None:
    """Against autograd's own cross entropy, whatever stands in the privileged prompts, on ranks of uneven counts."""
    from transformers import AutoModelForCausalLM

    kept = make_kept(2, 3)
    silent = [Row(r.prompt, r.response) for r in make_rollouts(1, 2)]
    job = make_job(model_dir, 2, silent, kept, hdpo={"divergence.kind": "cross_entropy"})
    for row in job.kept:
        row.teacher_prompt = [1]
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    logits = torch.cat([response_logits(model, row.prompt, row.response) for row in kept])
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([t for row in kept for t in row.response]))
    (LAMBDA * loss).backward()
    result = run(job)
    assert result.metrics["hdpo/jsd_mean"][0] == pytest.approx(loss.item(), rel=1e-5)
    assert_same(result.gradients[0], {n: p.grad for n, p in model.named_parameters()})
    assert result.metrics["hdpo/teacher_topk_mass"][0] == pytest.approx(1.0)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_teacher_and_student_are_compared_at_the_sampling_temperature(run: Run, model_dir: str, packed: bool) -> None:
    from transformers import AutoModelForCausalLM

    from recipe.hdpo.algorithm.divergence import topk_divergence
    from recipe.hdpo.algorithm.teacher_topk import teacher_topk

    kept, temperature = make_kept(2, 2), 2.5
    job = make_job(model_dir, 1, make_rollouts(1, 2), kept, packed=packed, dynamic=packed, temperature=temperature)
    model, values = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32), []
    for row in kept:
        with torch.no_grad():
            teacher = teacher_topk(response_logits(model, row.teacher_prompt, row.response) / temperature, TOPK)
            student = response_logits(model, row.prompt, row.response) / temperature
            values.append(topk_divergence(student, teacher, torch.arange(len(row.response))).per_token)
    assert run(job).metrics["hdpo/jsd_mean"][0] == pytest.approx(torch.cat(values).mean().item(), rel=1e-4)
