"""The update on real FSDP2 ranks against a plain model, one sequence at a time, by autograd."""

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.hdpo.fsdp_ranks import VOCABULARY, Job, Ranks, Result, Row, make_model

Run = Callable[[Job], Result]
LAMBDA = 0.7
TOPK = 5


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Job], Result]]:
    ranks = {n: Ranks(n, tmp_path_factory.mktemp(f"ranks_{n}")) for n in (1, 2)}
    yield lambda job: ranks[len(job.rollouts)](job)
    for group in ranks.values():
        group.close()


def _tokens(rng: random.Random, low: int, high: int) -> list[int]:
    return [rng.randrange(1, VOCABULARY) for _ in range(rng.randint(low, high))]


def _rollouts(seed: int, count: int) -> list[Row]:
    rng = random.Random(seed)
    return [
        Row(_tokens(rng, 2, 6), _tokens(rng, 1, 9), advantage=rng.uniform(-2, 2), old_log_prob_shift=rng.uniform(-1, 1))
        for _ in range(count)
    ]


def _kept(seed: int, count: int) -> list[Row]:
    rng = random.Random(seed)
    return [Row(_tokens(rng, 2, 5), _tokens(rng, 2, 8), teacher_prompt=_tokens(rng, 6, 12)) for _ in range(count)]


def _logits(model: torch.nn.Module, prompt: list[int], response: list[int]) -> torch.Tensor:
    logits = model(torch.tensor([prompt + response])).logits[0]
    return logits[len(prompt) - 1 : -1]


def _brute_force(
    model_dir: str,
    rollouts: list[Row],
    kept: list[Row],
    *,
    topk: int = TOPK,
    teacher_dir: str | None = None,
    update: dict[str, torch.Tensor] | None = None,
    update_teacher: bool = False,
) -> tuple[dict[str, torch.Tensor], float]:
    """Gradient of L_GRPO (token-mean, clip 0.2) + LAMBDA * L_JSD, and L_JSD, from their definitions.

    ``update`` is added to the student's weights first, and on request to the teacher's.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    teacher = AutoModelForCausalLM.from_pretrained(teacher_dir or model_dir, dtype=torch.float32)
    for name, change in (update or {}).items():
        model.get_parameter(name).data += change
        if update_teacher:
            teacher.get_parameter(name).data += change
    grpo, jsd = torch.zeros(()), torch.zeros(())
    for row in rollouts:
        log_probs = _logits(model, row.prompt, row.response).log_softmax(-1)
        log_prob = log_probs[torch.arange(len(row.response)), row.response]
        ratio = (log_prob - (-2.0 + row.old_log_prob_shift)).exp()
        a = row.advantage
        loss = torch.maximum(-a * ratio, -a * ratio.clamp(0.8, 1.2))
        grpo = grpo + (loss.clamp(max=-3.0 * a) if a < 0 else loss).sum()
    grpo = grpo / sum(len(r.response) for r in rollouts)
    for row in kept:
        with torch.no_grad():
            p = _logits(teacher, row.teacher_prompt, row.response).softmax(-1)
        truncated = torch.zeros_like(p).scatter(-1, p.topk(topk).indices, p.topk(topk).values)
        truncated = truncated / truncated.sum(-1, keepdim=True)
        q = _logits(model, row.prompt, row.response).softmax(-1)
        m = (truncated + q) / 2
        jsd = jsd + 0.5 * (torch.special.xlogy(truncated, truncated) - torch.special.xlogy(truncated, m)).sum()
        jsd = jsd + 0.5 * (q * (q.log() - m.log())).sum()
    if kept:
        jsd = jsd / sum(len(r.response) for r in kept)
    (grpo + LAMBDA * jsd).backward()
    return {n: p.grad for n, p in model.named_parameters()}, float(jsd)


def _assert_same(gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float = 2e-6) -> None:
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=2e-4, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def _job(model_dir: str, ranks: int, rollouts: list[Row], privileged: list[list[Row]], **options) -> Job:
    share = len(rollouts) // ranks
    parts = [rollouts[r * share : (r + 1) * share] for r in range(ranks)]
    hdpo = {"distillation_loss_coef": LAMBDA, "topk": TOPK, **options.pop("hdpo", {})}
    return Job(rollouts=parts, privileged=privileged, model_dir=model_dir, hdpo=hdpo, **options)


SPLITS = {
    "1 rank, packed, one micro-batch": dict(ranks=1, max_tokens=4096),
    "1 rank, packed, many micro-batches": dict(ranks=1, max_tokens=32),
    "1 rank, padded, 2 rows a micro-batch": dict(ranks=1, packed=False, dynamic=False, micro_batch_size=2),
    "2 ranks, packed, many micro-batches": dict(ranks=2, max_tokens=32),
    "2 ranks, padded, 1 row a micro-batch": dict(ranks=2, packed=False, dynamic=False, micro_batch_size=1),
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_gradient_equals_brute_force_however_the_batch_is_cut(run: Run, model_dir: str, split: dict) -> None:
    rollouts, kept = _rollouts(1, 4), _kept(2, 3)
    options = dict(split)
    ranks = options.pop("ranks")
    privileged = [kept] if ranks == 1 else [kept[:2], kept[2:]]
    expected, jsd = _brute_force(model_dir, rollouts, kept)
    result = run(_job(model_dir, ranks, rollouts, privileged, **options))
    assert len(result.gradients) == 1
    _assert_same(result.gradients[0], expected)
    assert result.metrics["hdpo/jsd_mean"][0] == pytest.approx(jsd, rel=1e-5)
    assert result.metrics["hdpo/loss_distillation"][0] == pytest.approx(LAMBDA * jsd, rel=1e-5)


def test_kept_rows_on_one_rank_only_neither_hang_nor_change_the_gradient(run: Run, model_dir: str) -> None:
    rollouts, kept = _rollouts(3, 4), _kept(4, 2)
    expected, _ = _brute_force(model_dir, rollouts, kept)
    result = run(_job(model_dir, 2, rollouts, [[], kept], max_tokens=40))
    _assert_same(result.gradients[0], expected)


def test_all_prompts_cliffs_leave_the_distillation_gradient_alone(run: Run, model_dir: str) -> None:
    rollouts, kept = [Row(r.prompt, r.response) for r in _rollouts(5, 4)], _kept(6, 2)
    expected, _ = _brute_force(model_dir, rollouts, kept)
    result = run(_job(model_dir, 2, rollouts, [kept[:1], kept[1:]]))
    _assert_same(result.gradients[0], expected)
    assert max(float(g.abs().max()) for g in result.gradients[0].values()) > 1e-3


def test_all_prompts_cliffs_and_nothing_kept_give_a_zero_gradient(run: Run, model_dir: str) -> None:
    rollouts = [Row(r.prompt, r.response) for r in _rollouts(5, 4)]
    result = run(_job(model_dir, 2, rollouts, [[], []]))
    assert all(float(g.abs().max()) == 0.0 for g in result.gradients[0].values())


def test_frozen_teacher_distills_from_the_initial_weights(run: Run, model_dir: str, tmp_path: Path) -> None:
    frozen = make_model(tmp_path / "frozen", seed=7)
    rollouts, kept = _rollouts(1, 2), _kept(2, 2)
    expected, _ = _brute_force(model_dir, rollouts, kept, teacher_dir=frozen)
    result = run(_job(model_dir, 1, rollouts, [kept], frozen_dir=frozen, hdpo={"teacher": "frozen"}))
    _assert_same(result.gradients[0], expected)
    drifting, _ = _brute_force(model_dir, rollouts, kept)
    assert any((drifting[n] - expected[n]).abs().max() > 1e-3 for n in expected)


def test_each_mini_batch_is_one_optimizer_step_and_gets_its_share_of_kept_rows(run: Run, model_dir: str) -> None:
    rollouts, kept = _rollouts(1, 4), _kept(2, 2)
    result = run(_job(model_dir, 1, rollouts, [kept], mini_batch_size=2, sgd=True, lr=1.0))
    assert len(result.gradients) == 2
    first, _ = _brute_force(model_dir, rollouts[:2], kept[:1])
    _assert_same(result.gradients[0], first)
    # The student has moved, the teacher has not: it was read before the first update.
    step = {name: -gradient for name, gradient in first.items()}
    second, _ = _brute_force(model_dir, rollouts[2:], kept[1:], update=step)
    _assert_same(result.gradients[1], second)
    read_again, _ = _brute_force(model_dir, rollouts[2:], kept[1:], update=step, update_teacher=True)
    assert any((read_again[n] - second[n]).abs().max() > 1e-3 for n in second)


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
    rollouts, kept = _rollouts(1, 4), _kept(2, 2)
    silent = [Row(r.prompt, r.response) for r in rollouts]
    both = run(_job(model_dir, 1, rollouts, [kept], actor=actor, max_tokens=4096)).gradients[0]
    alone = run(_job(model_dir, 1, rollouts, [[]], actor=actor, max_tokens=4096)).gradients[0]
    distillation, _ = _brute_force(model_dir, silent, kept)
    _assert_same({n: both[n] - alone[n] for n in both}, distillation)


def test_without_kept_rows_the_update_equals_plain_grpo_bit_for_bit(run: Run, model_dir: str) -> None:
    rollouts = _rollouts(1, 4)
    hdpo = run(_job(model_dir, 1, rollouts, [[]]))
    grpo = run(_job(model_dir, 1, rollouts, [[]], actor={"policy_loss": {"loss_mode": "vanilla"}}))
    for name in grpo.weights:
        assert torch.equal(hdpo.weights[name], grpo.weights[name])


def test_measuring_gradient_norms_leaves_the_step_unchanged_and_matches_brute_force(run: Run, model_dir: str) -> None:
    rollouts, kept = _rollouts(1, 4), _kept(2, 2)
    plain = run(_job(model_dir, 1, rollouts, [kept]))
    measured = run(_job(model_dir, 1, rollouts, [kept], measure_gradients=True))
    for name in plain.weights:
        assert torch.equal(plain.weights[name], measured.weights[name])
    silent = [Row(r.prompt, r.response) for r in rollouts]
    distillation, _ = _brute_force(model_dir, silent, kept)
    grpo, _ = _brute_force(model_dir, rollouts, [])
    norm = {k: math.sqrt(sum(float((g**2).sum()) for g in v.values())) for k, v in (("d", distillation), ("g", grpo))}
    assert measured.metrics["hdpo/grad_norm_distillation"][0] == pytest.approx(norm["d"], rel=1e-4)
    assert measured.metrics["hdpo/grad_norm_ratio"][0] == pytest.approx(norm["d"] / norm["g"], rel=1e-4)
    assert "hdpo/grad_norm_ratio" not in plain.metrics


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

    from recipe.hdpo.divergence import topk_divergence
    from recipe.hdpo.topk import teacher_topk

    rollouts, kept = _rollouts(1, 2), _kept(2, 2)
    job = _job(model_dir, 1, rollouts, [kept], hdpo={"topk": TOPK, **options})
    model, values = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32), []
    for row in kept:
        with torch.no_grad():
            teacher = teacher_topk(_logits(model, row.teacher_prompt, row.response), job.hdpo["topk"])
            result = topk_divergence(
                _logits(model, row.prompt, row.response),
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

    kept = _kept(2, 3)
    silent = [Row(r.prompt, r.response) for r in _rollouts(1, 2)]
    job = _job(model_dir, 2, silent, [kept[:2], kept[2:]], hdpo={"divergence.kind": "cross_entropy"})
    for part in job.privileged:
        for row in part:
            row.teacher_prompt = [1]
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    logits = torch.cat([_logits(model, row.prompt, row.response) for row in kept])
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([t for row in kept for t in row.response]))
    (LAMBDA * loss).backward()
    result = run(job)
    assert result.metrics["hdpo/jsd_mean"][0] == pytest.approx(loss.item(), rel=1e-5)
    _assert_same(result.gradients[0], {n: p.grad for n, p in model.named_parameters()})
    assert result.metrics["hdpo/teacher_topk_mass"][0] == pytest.approx(1.0)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_teacher_and_student_are_compared_at_the_sampling_temperature(run: Run, model_dir: str, packed: bool) -> None:
    from transformers import AutoModelForCausalLM

    from recipe.hdpo.divergence import topk_divergence
    from recipe.hdpo.topk import teacher_topk

    kept, temperature = _kept(2, 2), 2.5
    job = _job(model_dir, 1, _rollouts(1, 2), [kept], packed=packed, dynamic=packed, temperature=temperature)
    model, values = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32), []
    for row in kept:
        with torch.no_grad():
            teacher = teacher_topk(_logits(model, row.teacher_prompt, row.response) / temperature, TOPK)
            student = _logits(model, row.prompt, row.response) / temperature
            values.append(topk_divergence(student, teacher, torch.arange(len(row.response))).per_token)
    assert run(job).metrics["hdpo/jsd_mean"][0] == pytest.approx(torch.cat(values).mean().item(), rel=1e-4)
