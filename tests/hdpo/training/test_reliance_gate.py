"""Reliance from the two forwards that exist, and its gate: real FSDP2 ranks against the definition, joined by key."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recipe.hdpo.algorithm.reference import Controls
from recipe.hdpo.training.by_key import RELIANCE, ByKey
from tests.hdpo.training.brute_force import (
    LAMBDA,
    Run,
    assert_same,
    brute_force,
    make_job,
    make_kept,
    make_rollouts,
    masked,
    response_logits,
)
from tests.hdpo.training.fsdp_ranks import Row


def reliances(model_dir: str, kept: list[Row]) -> dict[str, float]:
    """By definition, one sequence at a time."""
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32), {}
    for i, row in enumerate(kept):
        own, ids = torch.tensor(row.response_mask).bool(), torch.tensor(row.response)[:, None]
        with torch.no_grad():
            student, teacher = (
                response_logits(model, prompt or [], row.response).log_softmax(-1).gather(-1, ids)[own, 0]
                for prompt in (row.prompt, row.teacher_prompt)
            )
        if own.any():
            found[f"u{i}_8_0"] = float((student - teacher).mean())
    return found


CASES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "nothing kept": (1, 0, {}),
    "one row on two ranks": (2, 1, {}),
    "uneven counts": (2, 3, {"max_tokens": 32}),
    "mini-batches": (2, 3, {"mini_batch_size": 2}),
    "fused head": (1, 3, {"hdpo": {"fused_head": True}}),
    "slices of the tokens": (1, 3, {"max_tokens": 16, "engine": {"ulysses_sequence_parallel_size": 2}}),
}


@pytest.mark.parametrize(("ranks", "count", "options"), CASES.values(), ids=CASES)
def test_the_reliance_of_every_kept_trajectory_is_told_once_by_its_key(
    run: Run, model_dir: str, ranks: int, count: int, options: dict[str, Any]
) -> None:
    # One optimizer step changes nothing, so that of two mini-batches both see the first weights.
    rollouts, kept = [Row(r.prompt, r.response) for r in make_rollouts(1, 4)], make_kept(2, count)
    metrics = run(make_job(model_dir, ranks, rollouts, kept, lr=0.0, **options)).metrics
    expected = reliances(model_dir, kept)
    assert (RELIANCE in metrics) == (count > 0)
    if count:
        assert metrics[RELIANCE].aggregate() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert "hdpo/weight_mean" not in metrics


def test_an_agents_tool_tokens_do_not_count_and_a_row_without_own_tokens_has_none(run: Run, model_dir: str) -> None:
    kept = masked(make_kept(2, 3), 6)
    kept[0].mask = [0] * len(kept[0].response)
    metrics = run(make_job(model_dir, 2, make_rollouts(1, 4), kept, max_tokens=32)).metrics
    expected = reliances(model_dir, kept)
    assert metrics[RELIANCE].aggregate() == pytest.approx(expected, rel=1e-4, abs=1e-5) and len(expected) == 2


@pytest.mark.parametrize(("ranks", "fused"), [(1, False), (2, False), (2, True)])
def test_the_gate_takes_trajectories_below_it_out_of_the_term_and_leaves_the_divisor(
    run: Run, model_dir: str, ranks: int, fused: bool
) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    values = sorted(reliances(model_dir, kept).values())
    least = (values[0] + values[1]) / 2
    expected, jsd = brute_force(model_dir, rollouts, kept, controls=Controls(least_reliance=least))
    hdpo = {"privileged.gate.reliance": least, "fused_head": fused}
    result = run(make_job(model_dir, ranks, rollouts, kept, hdpo=hdpo, max_tokens=32))
    assert_same(result.gradients[0], expected)
    assert result.metrics["hdpo/loss_distillation"][0] == pytest.approx(LAMBDA * jsd, rel=1e-5)
    [(dropped, _)] = [(k, v) for k, v in reliances(model_dir, kept).items() if v < least]
    lengths = {f"u{i}_8_0": len(row.response) for i, row in enumerate(kept)}
    share = 1 - lengths[dropped] / sum(lengths.values())
    assert result.metrics["hdpo/weight_mean"][0] == pytest.approx(share)
    _, whole = brute_force(model_dir, rollouts, kept)
    assert jsd < whole and result.metrics["hdpo/jsd_mean"][0] == pytest.approx(whole, rel=1e-5)


def test_a_gate_that_nothing_passes_leaves_grpos_gradient_and_later_epochs_keep_to_the_first(
    run: Run, model_dir: str
) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    below = {"privileged.gate.reliance": max(reliances(model_dir, kept).values()) + 1e-3}
    if below["privileged.gate.reliance"] > 0:
        kept = [row for i, row in enumerate(kept) if reliances(model_dir, kept)[f"u{i}_8_0"] < 0]
        below = {"privileged.gate.reliance": 0.0}
    assert kept
    alone, _ = brute_force(model_dir, rollouts, [])
    result = run(make_job(model_dir, 2, rollouts, kept, hdpo=below, epochs=2, max_tokens=32))
    assert_same(result.gradients[0], alone)
    assert [float(m) for m in result.metrics["hdpo/weight_mean"]] == [0.0, 0.0]
    expected = {f"u{i}_8_0": v for i, v in enumerate(reliances(model_dir, kept).values())}
    assert result.metrics[RELIANCE].aggregate() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_hard_labels_have_no_reliance(run: Run, model_dir: str) -> None:
    hdpo = {"divergence.kind": "cross_entropy"}
    metrics = run(make_job(model_dir, 1, make_rollouts(1, 2), make_kept(2, 2), hdpo=hdpo)).metrics
    assert metrics[RELIANCE].aggregate() == {}


def test_verls_reduction_of_metrics_hands_the_numbers_on_by_key() -> None:
    from verl.utils.metric import reduce_metrics

    from recipe.hdpo.training.by_key import pop_reliance

    metrics = reduce_metrics({f"actor/{RELIANCE}": ByKey({"u_8_0": -0.5}), "actor/x": [1.0, 3.0]})
    assert pop_reliance(metrics) == {"u_8_0": -0.5} and metrics == {"actor/x": 2.0} and pop_reliance(metrics) == {}
