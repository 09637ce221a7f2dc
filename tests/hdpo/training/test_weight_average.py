"""The averaged teacher over several steps on real FSDP2 ranks, against the average and the loss by definition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recipe.hdpo.algorithm.reference import Kept, hdpo_loss
from tests.hdpo.training.brute_force import TOPK, make_job, make_kept, make_rollouts, response_logits
from tests.hdpo.training.fsdp_ranks import Job, RankGroups
from tests.hdpo.training.several_steps import Step, Trace, several_steps

DECAY, STEPS = 0.6, 3
Weights = dict[str, torch.Tensor]


def _steps(ranks: int, count: int = STEPS) -> list[Step]:
    found = []
    for i in range(count):
        rollouts = make_rollouts(10 + i, 4)
        share = len(rollouts) // ranks
        parts = [rollouts[r * share : (r + 1) * share] for r in range(ranks)]
        found.append(Step(parts, make_kept(20 + i, (3, 1, 2)[i % 3])))
    return found


def _job(model_dir: str, ranks: int, decay: float = DECAY, teacher: str = "ema", **options) -> Job:
    hdpo = {"teacher": teacher, "ema_decay": decay}
    return make_job(model_dir, ranks, make_rollouts(1, 4), [], hdpo=hdpo, sgd=True, lr=0.5, **options)


@pytest.fixture(scope="module")
def trace(rank_groups: RankGroups, model_dir: str) -> Callable[..., Trace]:
    """Runs steps on some ranks; the same ones are run once."""
    known: dict[str, Trace] = {}

    def run(count: int = 1, *, steps: list[Step] | None = None, load=None, save=None, **options) -> Trace:
        key = repr((count, steps, load, save, options))
        if key not in known:
            job = _job(model_dir, count, **options)
            known[key] = rank_groups[count].call(several_steps, job, steps or _steps(count), load, save)
        return known[key]

    return run


def _same(found: Weights, expected: Weights, **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], **(tolerance or {"rtol": 0.0, "atol": 0.0}))


def _jsd(model_dir: str, student: Weights, teacher: Weights, step: Step) -> float:
    from transformers import AutoModelForCausalLM

    models = [AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32) for _ in range(2)]
    for model, weights in zip(models, (student, teacher), strict=True):
        model.load_state_dict(weights)
    with torch.no_grad():
        pairs = [
            Kept(
                response_logits(models[0], row.prompt, row.response),
                response_logits(models[1], row.teacher_prompt, row.response),
            )
            for row in step.kept
        ]
        return hdpo_loss([], pairs, coef=1.0, topk=TOPK).jsd.item()


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_average_follows_its_recursion_and_teaches_each_step(trace, model_dir: str, ranks: int) -> None:
    found = trace(ranks)
    expected = found.weights[0]
    for i, step in enumerate(_steps(ranks)):
        _same(found.averages[i], expected, rtol=1e-6, atol=1e-7)
        jsd = _jsd(model_dir, found.weights[i], expected, step)
        assert found.metrics[i]["hdpo/jsd_mean"][0] == pytest.approx(jsd, rel=1e-4)
        expected = {n: DECAY * a + (1 - DECAY) * found.weights[i + 1][n] for n, a in expected.items()}
    _same(found.averages[-1], expected, rtol=1e-6, atol=1e-7)
    drifting = _jsd(model_dir, found.weights[2], found.weights[2], _steps(ranks)[2])
    assert abs(drifting - found.metrics[2]["hdpo/jsd_mean"][0]) > 1e-3


def test_one_and_two_ranks_average_to_the_same_weights(trace) -> None:
    one, two = trace(1), trace(2)
    _same(two.averages[-1], one.averages[-1], rtol=1e-4, atol=1e-6)
    moved = max(float((one.averages[-1][n] - one.averages[0][n]).abs().max()) for n in one.averages[0])
    assert moved > 1e-2


def test_decay_0_is_the_drifting_teacher_bit_for_bit(trace) -> None:
    ema, drifting = trace(1, decay=0.0), trace(1, teacher="drifting")
    for found, expected in zip(ema.weights, drifting.weights, strict=True):
        _same(found, expected)
    assert [m["hdpo/jsd_mean"] for m in ema.metrics] == [m["hdpo/jsd_mean"] for m in drifting.metrics]


def test_decay_1_is_the_frozen_teacher(trace, model_dir: str) -> None:
    ema, frozen = trace(1, decay=1.0), trace(1, teacher="frozen", frozen_dir=model_dir)
    _same(ema.averages[-1], ema.weights[0])
    for found, expected in zip(ema.weights, frozen.weights, strict=True):
        _same(found, expected, rtol=1e-5, atol=1e-6)


def test_the_average_counts_steps_and_not_mini_batches_or_epochs(trace) -> None:
    found = trace(1, mini_batch_size=2, epochs=2)
    assert len(found.metrics[0]["hdpo/jsd_mean"]) == 4
    for i in range(STEPS):
        expected = {n: DECAY * a + (1 - DECAY) * found.weights[i + 1][n] for n, a in found.averages[i].items()}
        _same(found.averages[i + 1], expected, rtol=1e-6, atol=1e-7)


def test_a_step_without_kept_rows_moves_the_average_too(trace) -> None:
    steps = [Step(step.rollouts, []) for step in _steps(1, 1)]
    found = trace(1, steps=steps)
    expected = {n: DECAY * a + (1 - DECAY) * found.weights[1][n] for n, a in found.averages[0].items()}
    _same(found.averages[1], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_run_goes_on_bit_for_bit(trace, tmp_path: Path, ranks: int) -> None:
    steps, folder = _steps(ranks), str(tmp_path / "actor")
    first = trace(ranks, steps=steps[:2], save=folder)
    rest = trace(ranks, steps=steps[2:], load=folder)
    whole = trace(ranks)
    _same(rest.averages[0], first.averages[-1])
    _same(rest.averages[-1], whole.averages[-1])
    _same(rest.weights[-1], whole.weights[-1])
    assert rest.metrics[0]["hdpo/jsd_mean"] == whole.metrics[2]["hdpo/jsd_mean"]
    names = {path.name for path in Path(folder).glob("hdpo_ema*")}
    assert names == {f"hdpo_ema_world_size_{ranks}_rank_{rank}.pt" for rank in range(ranks)}


def test_a_checkpoint_without_an_average_or_with_another_models_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recipe.hdpo.training.weight_average import WeightAverage

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    average = WeightAverage(torch.nn.Linear(3, 2), 0.5)
    with pytest.raises(ValueError, match=r"finds no average .*hdpo_ema_world_size_2_rank_1\.pt.* another teacher"):
        average.load(str(tmp_path))
    average.save(str(tmp_path))
    average.load(str(tmp_path))
    with pytest.raises(ValueError, match=r"average of another model: 1 weights .* weight among them"):
        WeightAverage(torch.nn.Linear(4, 2), 0.5).load(str(tmp_path))
    with pytest.raises(ValueError, match=r"average of another model: 1 weights .* bias among them"):
        WeightAverage(torch.nn.Linear(3, 2, bias=False), 0.5).load(str(tmp_path))


def test_an_error_in_the_teacher_pass_leaves_the_students_weights() -> None:
    from recipe.hdpo.training.weight_average import WeightAverage

    module = torch.nn.Linear(3, 2)
    average = WeightAverage(module, 0.5)
    with torch.no_grad():
        module.weight += 1.0
    before = module.weight.clone()
    with pytest.raises(RuntimeError, match="no"), average.in_place_of_weights(module):
        torch.testing.assert_close(module.weight, before - 1.0)
        raise RuntimeError("no")
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize(
    "engine",
    [{"param_offload": True, "optimizer_offload": True}, {"reshard_after_forward": False}, {"offload_policy": True}],
    ids=str,
)
def test_offload_and_kept_gathered_weights_change_nothing(trace, engine: dict) -> None:
    found, plain = trace(2, engine=engine), trace(2)
    _same(found.averages[-1], plain.averages[-1])
    _same(found.weights[-1], plain.weights[-1])
    assert [m["hdpo/jsd_mean"] for m in found.metrics] == [m["hdpo/jsd_mean"] for m in plain.metrics]


@pytest.mark.parametrize("orig", [False, True], ids=["flat", "original"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_fsdp1_averages_its_flat_shards_to_the_same_teacher(trace, ranks: int, orig: bool) -> None:
    found, plain = trace(ranks, engine={"strategy": "fsdp", "use_orig_params": orig}), trace(ranks)
    for i in range(STEPS):
        expected = {n: DECAY * a + (1 - DECAY) * found.weights[i + 1][n] for n, a in found.averages[i].items()}
        _same(found.averages[i + 1], expected, rtol=1e-6, atol=1e-7)
        jsd = plain.metrics[i]["hdpo/jsd_mean"][0]
        assert found.metrics[i]["hdpo/jsd_mean"][0] == pytest.approx(jsd, rel=1e-4)


def test_bf16_weights_are_averaged_in_float32(trace) -> None:
    found = trace(1, engine={"model_dtype": "bfloat16"})
    assert found.weights[1]["lm_head.weight"].dtype == torch.bfloat16
    for i in range(STEPS):
        expected = {n: DECAY * a + (1 - DECAY) * found.weights[i + 1][n].float() for n, a in found.averages[i].items()}
        _same(found.averages[i + 1], expected, rtol=1e-6, atol=1e-7)
