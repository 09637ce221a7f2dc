"""Several optimizer steps on real FSDP2 ranks, the teachers, and what the worker adds to verl's.

As in ``test_actor.py``, the reference is the definition, computed on a plain model.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import open_dict

from recipe.hdpo import transfer
from recipe.hdpo.training import mini_batch
from tests.hdpo.training.brute_force import Run, assert_same, brute_force, make_job, make_kept, make_rollouts
from tests.hdpo.training.fsdp_ranks import Row, make_model


@pytest.mark.parametrize("ranks", [1, 2])
def test_frozen_teacher_distills_from_the_initial_weights(run: Run, model_dir: str, tmp_path: Path, ranks: int) -> None:
    frozen = make_model(tmp_path / "frozen", seed=7)
    rollouts, kept = make_rollouts(1, 2), make_kept(2, 3)
    expected, _ = brute_force(model_dir, rollouts, kept, teacher_dir=frozen)
    result = run(make_job(model_dir, ranks, rollouts, kept, frozen_dir=frozen, hdpo={"teacher": "frozen"}))
    assert_same(result.gradients[0], expected)
    drifting, _ = brute_force(model_dir, rollouts, kept)
    assert any((drifting[n] - expected[n]).abs().max() > 1e-3 for n in expected)


def test_an_update_multiplies_lambda_by_the_factor_that_it_is_told(run: Run, model_dir: str) -> None:
    rollouts, kept = make_rollouts(1, 2), make_kept(2, 2)
    result = run(make_job(model_dir, 1, rollouts, kept, factor=0.25))
    grpo, _ = brute_force(model_dir, rollouts, [])
    both, _ = brute_force(model_dir, rollouts, kept)
    assert_same(result.gradients[0], {name: grpo[name] + 0.25 * (both[name] - grpo[name]) for name in both})


def test_each_mini_batch_is_one_optimizer_step_and_gets_its_share_of_kept_rows(run: Run, model_dir: str) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 2)
    result = run(make_job(model_dir, 1, rollouts, kept, mini_batch_size=2, sgd=True, lr=1.0))
    assert len(result.gradients) == 2
    first, _ = brute_force(model_dir, rollouts[:2], kept[:1])
    assert_same(result.gradients[0], first)
    # The student has moved, the teacher has not: it was read before the first update.
    step = {name: -gradient for name, gradient in first.items()}
    second, _ = brute_force(model_dir, rollouts[2:], kept[1:], update=step)
    assert_same(result.gradients[1], second)
    read_again, _ = brute_force(model_dir, rollouts[2:], kept[1:], update=step, update_teacher=True)
    assert any((read_again[n] - second[n]).abs().max() > 1e-3 for n in second)


@pytest.mark.parametrize("micro_batch_size", [None, 1, 2], ids=["dynamic", "1 row", "2 rows"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_mini_batches_hold_the_same_kept_rows_however_many_ranks_and_rows_a_micro_batch(
    run: Run, model_dir: str, count: int, micro_batch_size: int | None
) -> None:
    """Rank 0 holds rollouts 0 to 3 and rank 1 holds 4 to 7, and either gives two to each mini-batch."""
    rollouts, kept = make_rollouts(1, 8), make_kept(2, count)
    fixed = (
        {} if micro_batch_size is None else {"dynamic": False, "packed": False, "micro_batch_size": micro_batch_size}
    )
    result = run(make_job(model_dir, 2, rollouts, kept, mini_batch_size=4, sgd=True, lr=1.0, **fixed))
    assert len(result.gradients) == 2
    half = math.ceil(count / 2)
    first, _ = brute_force(model_dir, rollouts[0:2] + rollouts[4:6], kept[:half])
    assert_same(result.gradients[0], first)
    step = {name: -gradient for name, gradient in first.items()}
    second, _ = brute_force(model_dir, rollouts[2:4] + rollouts[6:8], kept[half:], update=step)
    assert_same(result.gradients[1], second)


def test_every_epoch_distills_the_kept_rows_anew_from_the_same_teacher(run: Run, model_dir: str) -> None:
    rollouts, kept = make_rollouts(1, 2), make_kept(2, 2)
    result = run(make_job(model_dir, 1, rollouts, kept, epochs=2, sgd=True, lr=1.0))
    assert len(result.gradients) == 2
    step = {name: -gradient for name, gradient in result.gradients[0].items()}
    second, _ = brute_force(model_dir, rollouts, kept, update=step)
    assert_same(result.gradients[1], second)


def test_without_kept_rows_the_update_equals_that_of_verls_own_worker_bit_for_bit(run: Run, model_dir: str) -> None:
    rollouts = make_rollouts(1, 4)
    hdpo = run(make_job(model_dir, 1, rollouts, []))
    grpo = run(make_job(model_dir, 1, rollouts, [], stock=True))
    for name in grpo.weights:
        assert torch.equal(hdpo.weights[name], grpo.weights[name])


@pytest.mark.parametrize("ranks", [1, 2])
def test_measuring_gradient_norms_leaves_the_step_unchanged_and_matches_brute_force(
    run: Run, model_dir: str, ranks: int
) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    plain = run(make_job(model_dir, ranks, rollouts, kept))
    measured = run(make_job(model_dir, ranks, rollouts, kept, measure_gradients=True))
    for name in plain.weights:
        assert torch.equal(plain.weights[name], measured.weights[name])
    silent = [Row(r.prompt, r.response) for r in rollouts]
    distillation, _ = brute_force(model_dir, silent, kept)
    grpo, _ = brute_force(model_dir, rollouts, [])
    norm = {k: math.sqrt(sum(float((g**2).sum()) for g in v.values())) for k, v in (("d", distillation), ("g", grpo))}
    assert measured.metrics["hdpo/grad_norm_distillation"][0] == pytest.approx(norm["d"], rel=1e-4)
    assert measured.metrics["hdpo/grad_norm_ratio"][0] == pytest.approx(norm["d"] / norm["g"], rel=1e-4)
    assert "hdpo/grad_norm_ratio" not in plain.metrics


def test_gradient_norms_are_measured_in_the_first_mini_batch_alone(run: Run, model_dir: str) -> None:
    """Each measurement is two more backward passes."""
    job = make_job(model_dir, 1, make_rollouts(1, 4), make_kept(2, 2), mini_batch_size=2, measure_gradients=True)
    assert len(run(job).metrics["hdpo/grad_norm_distillation"]) == 1


@pytest.mark.parametrize(("mini_batch_size", "count"), [(4, 3), (2, 1), (1, 2)])
def test_kept_rows_in_micro_batches_of_their_own_leave_verls_means_alone(
    run: Run, model_dir: str, mini_batch_size: int, count: int
) -> None:
    """Also where some of the mini-batches have kept rows and others have none."""
    rollouts, kept = make_rollouts(1, 4), make_kept(2, count)
    one_row = {"packed": False, "dynamic": False, "micro_batch_size": 1, "mini_batch_size": mini_batch_size, "lr": 0.0}
    alone = run(make_job(model_dir, 1, rollouts, [], **one_row)).metrics
    both = run(make_job(model_dir, 1, rollouts, kept, **one_row)).metrics
    for name in ("actor/ppo_kl", "actor/pg_clipfrac", "actor/pg_loss"):
        assert _number(both[name]) == pytest.approx(_number(alone[name]), rel=1e-5) and _number(alone[name]) != 0


def _number(values: list) -> float:
    return float(np.mean([np.mean(v) for v in values]))


def test_the_columns_of_a_kept_row_are_student_prompt_teacher_prompt_response_and_its_mask(monkeypatch) -> None:
    from recipe.hdpo.training import actor as actor_module

    stored = {"a": ([1, 2], [3, 4, 5], [6], [1]), "b": ([7], [8, 9], [10, 11], [0, 1])}

    def fetch(meta) -> dict[str, torch.Tensor]:
        found = [transfer.privileged_fields(*stored[key]) for key in meta.keys]
        return {name: mini_batch.nested([f[name].unbind()[0] for f in found]) for name in meta.fields}

    monkeypatch.setattr(actor_module, "_meta_to_realdata", fetch)
    columns = actor_module.HDPOActor._fetch_columns(None, ["b", "a"])
    kept = [mini_batch.KeptRow(*row, row_id=0) for row in zip(*columns, strict=True)]
    found = [tuple(column.tolist() for column in row[:4]) for row in kept]
    assert found == [stored["b"], stored["a"]]


@pytest.mark.parametrize("teacher", ["drifting", "frozen"])
def test_a_reference_model_that_is_there_teaches_only_where_the_teacher_is_frozen(monkeypatch, teacher: str) -> None:
    """verl starts one for a KL term too, also beside a drifting teacher."""
    from verl.workers.engine_workers import ActorRolloutRefWorker

    from recipe.hdpo.training.actor import HDPOActor
    from recipe.hdpo.training.worker import HDPOWorker
    from tests.hdpo.composed_config import composed

    def init_model(self) -> None:
        assert self.config.actor.policy_loss.loss_mode == "vanilla"

    monkeypatch.setattr(ActorRolloutRefWorker, "init_model", init_model)
    worker, actor, reference = HDPOWorker.__new__(HDPOWorker), HDPOActor.__new__(HDPOActor), object()
    actor.engine_config, actor.engine = object(), SimpleNamespace()
    actor.model_config = SimpleNamespace(tokenizer=SimpleNamespace(eos_token_id=3))
    loss = SimpleNamespace(keywords={"config": "the actor's"})
    config = composed(f"hdpo.teacher={teacher}")
    with open_dict(config):
        config.actor_rollout_ref.hdpo = config.hdpo
    settings = {"config": config.actor_rollout_ref, "actor": actor, "ref": reference, "loss_fn": loss}
    vars(worker).update(settings)
    found: dict = {}
    monkeypatch.setattr(HDPOWorker, "set_loss_fn", lambda self, loss_fn: found.update(loss=loss_fn))
    worker.init_model()
    assert actor.teacher is (reference if teacher == "frozen" else None)
    assert actor.pad_token_id == 3 and found["loss"].actor_config == "the actor's"
