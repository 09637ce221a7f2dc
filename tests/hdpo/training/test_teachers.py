"""The mixed teacher, teachers under LoRA, clip and weights of tokens: real FSDP2 ranks against the definition."""

from __future__ import annotations

import math

import pytest
import torch

from recipe.hdpo.algorithm.reference import Controls
from tests.hdpo.training.brute_force import LAMBDA, Run, assert_same, brute_force, make_job, make_kept, make_rollouts
from tests.hdpo.training.fsdp_ranks import RankGroups, Row, make_model
from tests.hdpo.training.several_steps import Step, several_steps


@pytest.fixture(scope="module")
def frozen_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("frozen"), seed=7)


@pytest.mark.parametrize(("ranks", "weight"), [(1, 0.3), (2, 0.3), (2, 0.0), (2, 1.0)])
def test_the_mixed_teacher_lies_between_the_drifting_and_the_frozen_one(
    run: Run, model_dir: str, frozen_dir: str, ranks: int, weight: float
) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    expected, jsd = brute_force(model_dir, rollouts, kept, teacher_dir=frozen_dir, mixed_weight=weight)
    hdpo = {"teacher": "mixed", "mixed_weight": weight}
    result = run(make_job(model_dir, ranks, rollouts, kept, frozen_dir=frozen_dir, hdpo=hdpo, max_tokens=32))
    assert_same(result.gradients[0], expected)
    assert result.metrics["hdpo/jsd_mean"][0] == pytest.approx(jsd, rel=1e-5)


def test_the_mixed_teachers_ends_are_the_two_teachers_bit_for_bit(run: Run, model_dir: str, frozen_dir: str) -> None:
    rollouts, kept = make_rollouts(1, 2), make_kept(2, 2)
    for weight, teacher, folder in ((0.0, "drifting", None), (1.0, "frozen", frozen_dir)):
        hdpo = {"teacher": "mixed", "mixed_weight": weight}
        mixed = run(make_job(model_dir, 1, rollouts, kept, frozen_dir=frozen_dir, hdpo=hdpo))
        alone = run(make_job(model_dir, 1, rollouts, kept, frozen_dir=folder, hdpo={"teacher": teacher}))
        assert all(torch.equal(mixed.weights[name], alone.weights[name]) for name in alone.weights)


def test_under_lora_the_adapter_is_averaged_and_the_mixture_is_with_the_model_without_it(
    rank_groups: RankGroups, model_dir: str
) -> None:
    """Two steps of a new adapter, which changes nothing until it was trained once."""
    adapter = {"lora_rank": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    parts = [make_rollouts(1, 4)[:2], make_rollouts(1, 4)[2:]]
    steps = [Step(parts, make_kept(20 + i, 3)) for i in range(2)]

    def trace(**hdpo):
        job = make_job(model_dir, 2, make_rollouts(1, 4), [], hdpo=hdpo, model=adapter, sgd=True, lr=5.0)
        return rank_groups[2].call(several_steps, job, steps)

    averaged = trace(teacher="ema", ema_decay=0.6)
    trained = [name for name in averaged.weights[0] if "lora_" in name]
    assert averaged.averages[0].keys() == set(trained)
    for i in range(2):
        for name in trained:
            expected = 0.6 * averaged.averages[i][name] + 0.4 * averaged.weights[i + 1][name]
            torch.testing.assert_close(averaged.averages[i + 1][name], expected, rtol=1e-6, atol=1e-7)
    jsd = {
        name: trace(**hdpo).metrics[1]["hdpo/jsd_mean"][0]
        for name, hdpo in {
            "drifting": {"teacher": "drifting"},
            "frozen": {"teacher": "frozen"},
            "ema 0": {"teacher": "ema", "ema_decay": 0.0},
            "ema 1": {"teacher": "ema", "ema_decay": 1.0},
            "mixed 1": {"teacher": "mixed", "mixed_weight": 1.0},
            "mixed": {"teacher": "mixed", "mixed_weight": 0.5},
        }.items()
    }
    assert jsd["ema 0"] == jsd["drifting"]
    # At decay 1 the adapter is the one that training started from, whose product is 0.
    assert jsd["mixed 1"] == jsd["frozen"] == pytest.approx(jsd["ema 1"], rel=1e-5)
    assert abs(jsd["frozen"] - jsd["drifting"]) > 1e-4
    assert min(abs(jsd["mixed"] - jsd[name]) for name in ("drifting", "frozen")) > 1e-5


CONTROLS = {
    "clip": {"clip": 0.1},
    "entropy": {"entropy_damping": 0.7},
    "reliance": {"reliance_damping": 0.4},
    "all": {"clip": 0.1, "entropy_damping": 0.7, "reliance_damping": 0.4},
}


@pytest.mark.parametrize(
    ("ranks", "controls"),
    [*((2, c) for c in CONTROLS.values()), (1, CONTROLS["all"])],
    ids=[*CONTROLS, "all, 1 rank"],
)
def test_clip_and_weights_of_tokens_are_those_of_the_definition_on_ranks_of_uneven_counts(
    run: Run, model_dir: str, ranks: int, controls: dict
) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    expected, jsd = brute_force(model_dir, rollouts, kept, controls=Controls(**controls))
    hdpo = {f"divergence.{name}": value for name, value in controls.items()}
    result = run(make_job(model_dir, ranks, rollouts, kept, hdpo=hdpo, max_tokens=32))
    assert_same(result.gradients[0], expected)
    _, plain = brute_force(model_dir, rollouts, kept)
    # The divergence is reported as it is, the loss as it is trained on.
    assert result.metrics["hdpo/jsd_mean"][0] == pytest.approx(plain, rel=1e-5)
    assert result.metrics["hdpo/loss_distillation"][0] == pytest.approx(LAMBDA * jsd, rel=1e-5)
    assert jsd < 0.9 * plain
    assert ("hdpo/clipped_tokens" in result.metrics) == ("clip" in controls)
    assert ("hdpo/weight_mean" in result.metrics) == (len(controls) > 1 or "clip" not in controls)


def test_the_share_of_clipped_tokens_and_the_mean_weight_are_means_over_all_distilled_tokens(
    run: Run, model_dir: str
) -> None:
    """Bounds below and above every token's divergence; weights that leave nothing."""
    silent, kept = [Row(r.prompt, r.response) for r in make_rollouts(1, 2)], make_kept(2, 3)
    for clip, share in ((1e-9, 1.0), (0.7, 0.0)):
        metrics = run(make_job(model_dir, 2, silent, kept, hdpo={"divergence.clip": clip})).metrics
        assert metrics["hdpo/clipped_tokens"][0] == pytest.approx(share)
    bound = run(make_job(model_dir, 2, silent, kept, hdpo={"divergence.clip": 0.9 * math.log(2)})).metrics
    assert 0.0 < bound["hdpo/saturated_tokens"][0] == bound["hdpo/clipped_tokens"][0] < 1.0
    # By another divergence there is no such bound.
    kl = run(make_job(model_dir, 2, silent, kept, hdpo={"divergence.kind": "forward_kl"})).metrics
    assert "hdpo/saturated_tokens" not in kl
    none = run(make_job(model_dir, 2, silent, kept, hdpo={"divergence.entropy_damping": 1e6}))
    assert none.metrics["hdpo/weight_mean"][0] == pytest.approx(0.0, abs=1e-6)
    assert all(float(g.abs().max()) < 1e-9 for g in none.gradients[0].values())
    shown_to_both = [Row(r.prompt, r.response, teacher_prompt=r.prompt) for r in kept]
    even = run(make_job(model_dir, 2, silent, shown_to_both, hdpo={"divergence.reliance_damping": 5.0})).metrics
    assert even["hdpo/weight_mean"][0] == pytest.approx(1.0, abs=1e-4)
