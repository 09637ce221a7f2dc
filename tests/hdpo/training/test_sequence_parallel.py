"""Ulysses sequence parallelism: each rank of a group has one slice of the packed tokens, and the update is the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from verl.utils import tensordict_utils as tu

from recipe.hdpo.algorithm.reference import Controls
from recipe.hdpo.training import mini_batch
from recipe.hdpo.training.teacher_pass import assign_engine_settings
from tests.hdpo.training.brute_force import LAMBDA, Run, assert_same, brute_force, make_job, make_kept, make_rollouts
from tests.hdpo.training.fsdp_ranks import Job, RankGroups, Row, make_model
from tests.hdpo.training.several_steps import Step, several_steps

SLICED = {"ulysses_sequence_parallel_size": 2}
HEADS = pytest.mark.parametrize("fused", [False, True], ids=["logits", "fused head"])


def _job(model_dir: str, groups: int, rollouts: list[Row], kept: list[Row], **options: Any) -> Job:
    """Dealt to so many groups of two ranks."""
    return make_job(model_dir, groups, rollouts, kept, engine=SLICED, **{"max_tokens": 16, **options})


@pytest.fixture(scope="module")
def frozen_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("frozen"), seed=7)


@HEADS
@pytest.mark.parametrize("kept_rows", [0, 1, 3])
def test_gradient_equals_brute_force_with_no_one_and_uneven_kept_rows_in_two_groups(
    run: Run, model_dir: str, kept_rows: int, fused: bool
) -> None:
    """With one row the other group has a dummy of two tokens, one for each of its ranks."""
    rollouts, kept = make_rollouts(1, 4), make_kept(2, kept_rows)
    expected, jsd = brute_force(model_dir, rollouts, kept)
    result = run(_job(model_dir, 2, rollouts, kept, hdpo={"fused_head": fused}))
    assert_same(result.gradients[0], expected)
    if kept:
        assert result.metrics["hdpo/jsd_mean"][0] == pytest.approx(jsd, rel=1e-5)
        assert result.metrics["hdpo/loss_distillation"][0] == pytest.approx(LAMBDA * jsd, rel=1e-5)


@HEADS
def test_a_slice_may_hold_prompts_alone(run: Run, model_dir: str, fused: bool) -> None:
    """Micro-batches of one row each: the first rank's slice predicts nothing, in the teacher pass neither."""
    rollouts = [Row([3] * 20 + r.prompt, r.response[:3], advantage=r.advantage) for r in make_rollouts(1, 2)]
    kept = [Row([4] * 20 + r.prompt, r.response[:3], teacher_prompt=[5] * 25) for r in make_kept(2, 2)]
    expected, _ = brute_force(model_dir, rollouts, kept)
    result = run(_job(model_dir, 1, rollouts, kept, dynamic=False, hdpo={"fused_head": fused}))
    assert_same(result.gradients[0], expected)


@HEADS
def test_controls_of_tokens_read_log_probabilities_of_all_slices(run: Run, model_dir: str, fused: bool) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    controls = {"clip": 0.1, "entropy_damping": 0.7, "reliance_damping": 0.4}
    expected, jsd = brute_force(model_dir, rollouts, kept, controls=Controls(**controls))
    hdpo = {f"divergence.{name}": value for name, value in controls.items()} | {"fused_head": fused}
    result = run(_job(model_dir, 2, rollouts, kept, hdpo=hdpo))
    assert_same(result.gradients[0], expected)
    assert result.metrics["hdpo/loss_distillation"][0] == pytest.approx(LAMBDA * jsd, rel=1e-5)


@HEADS
def test_temperature_entropy_and_gradient_norms_are_those_of_one_rank(run: Run, model_dir: str, fused: bool) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    options: dict[str, Any] = dict(temperature=0.7, actor={"entropy_coeff": 0.1}, measure_gradients=True)
    one = run(make_job(model_dir, 1, rollouts, kept, **options))
    two = run(_job(model_dir, 1, rollouts, kept, hdpo={"fused_head": fused}, **options))
    assert_same(two.gradients[0], one.gradients[0])
    for name in ("hdpo/grad_norm_grpo", "hdpo/grad_norm_distillation", "hdpo/teacher_topk_mass"):
        assert two.metrics[name][0] == pytest.approx(one.metrics[name][0], rel=1e-4)


@HEADS
def test_the_frozen_teacher_may_read_whole_sequences(run: Run, model_dir: str, frozen_dir: str, fused: bool) -> None:
    """The two ranks of a group then read the same rows, each for itself."""
    rollouts, kept = make_rollouts(3, 4), make_kept(4, 3)
    expected, _ = brute_force(model_dir, rollouts, kept, teacher_dir=frozen_dir)
    hdpo = {"teacher": "frozen", "fused_head": fused}
    whole = {"ulysses_sequence_parallel_size": 1}
    result = run(_job(model_dir, 2, rollouts, kept, frozen_dir=frozen_dir, frozen_engine=whole, hdpo=hdpo))
    assert_same(result.gradients[0], expected)


def test_the_mixed_teacher_mixes_slices(run: Run, model_dir: str, frozen_dir: str) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    expected, _ = brute_force(model_dir, rollouts, kept, teacher_dir=frozen_dir, mixed_weight=0.3)
    hdpo = {"teacher": "mixed", "mixed_weight": 0.3}
    assert_same(run(_job(model_dir, 2, rollouts, kept, frozen_dir=frozen_dir, hdpo=hdpo)).gradients[0], expected)


def test_the_averaged_teacher_is_that_of_one_rank(rank_groups: RankGroups, model_dir: str) -> None:
    """In the second step, where it differs from the actor."""
    rollouts = make_rollouts(1, 4)
    steps = [Step([rollouts], make_kept(20 + i, 3)) for i in range(2)]
    hdpo = {"teacher": "ema", "ema_decay": 0.6}
    options: dict[str, Any] = dict(hdpo=hdpo, sgd=True, lr=1.0, max_tokens=32)
    one = rank_groups[1].call(several_steps, make_job(model_dir, 1, rollouts, [], **options), steps)
    two = rank_groups[2].call(several_steps, _job(model_dir, 1, rollouts, [], **options), steps)
    found, expected = (trace.metrics[1]["hdpo/jsd_mean"][0] for trace in (two, one))
    assert found == pytest.approx(expected, rel=1e-4)
    assert_same(two.averages[2], one.averages[2])


def test_attention_that_verl_does_not_patch_gives_another_gradient_without_an_error(run: Run, model_dir: str) -> None:
    """Why it is refused: each rank attends to its own slice alone."""
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    expected, _ = brute_force(model_dir, rollouts, kept)
    found = run(_job(model_dir, 1, rollouts, kept, attention="sdpa")).gradients[0]
    error = torch.cat([(found[name] - expected[name]).flatten() for name in expected]).norm()
    assert error > 0.1 * torch.cat([g.flatten() for g in expected.values()]).norm()


@pytest.mark.parametrize(("ranks", "budget"), [(1, 31), (2, 16), (4, 8)])
def test_the_teacher_pass_makes_room_for_its_longest_row_in_all_slices_together(ranks: int, budget: int) -> None:
    rows = [torch.arange(n) for n in (1, 30)]
    batch = mini_batch.sequence_batch(rows, [torch.arange(1)] * 2, [0, 1])
    config = SimpleNamespace(
        ulysses_sequence_parallel_size=ranks,
        infer_max_token_len_per_gpu=5,
        infer_micro_batch_size_per_gpu=None,
        use_dynamic_bsz=True,
    )
    worker: Any = SimpleNamespace(engine_config=config, model_config={})
    assign_engine_settings(worker, batch, training=False)
    assert tu.get_non_tensor_data(batch, "max_token_len_per_gpu", None) == budget
