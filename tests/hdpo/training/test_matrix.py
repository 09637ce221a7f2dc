"""The update under combinations of verl's settings, against its definition: a choice of them that holds every pair."""

from __future__ import annotations

import inspect
import itertools
import re
from types import SimpleNamespace

import pytest
import torch

from recipe.hdpo.config.checks import refusals
from tests.hdpo.composed_config import composed
from tests.hdpo.training import offload
from tests.hdpo.training.brute_force import Run
from tests.hdpo.training.matrix import cases, compare
from tests.hdpo.training.matrix.definition import Files

ACTOR = "actor_rollout_ref.actor"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("matrix"))


@pytest.mark.parametrize("case", cases.in_ci(), ids=str)
def test_the_update_is_verls_policy_gradient_and_lambda_times_that_of_the_mean_jsd(
    run: Run, files: Files, case: cases.Case
) -> None:
    errors = compare.compare(case, run, files)
    assert compare.is_exact(case, errors, files), errors


@pytest.mark.parametrize("shape", ["FSDP2, 1 rank", "FSDP1, 1 rank"])
@pytest.mark.parametrize("teacher", ["adapter, frozen", "adapter, drifting"])
def test_an_adapter_learns_where_gathered_weights_are_kept(run: Run, files: Files, shape: str, teacher: str) -> None:
    case = cases.Case(shape=shape, teacher=teacher, gathering="reshard_after_forward=false")
    errors = compare.compare(case, run, files)
    assert compare.is_exact(case, errors, files), errors


@pytest.mark.parametrize("head", cases.HEADS)
@pytest.mark.parametrize("teacher", cases.TEACHERS)
def test_a_bf16_update_is_that_of_a_bf16_model_that_reads_one_sequence_at_a_time(
    run: Run, files: Files, teacher: str, head: str
) -> None:
    """Bits of bf16 included: the gradients of single sequences are rounded once, and added up in float32."""
    case = cases.Case(precision="bf16", cut="packed, 1 row", teacher=teacher, head=head)
    assert case.rounds_as_defined
    errors = compare.compare(case, run, files)
    assert compare.is_exact(case, errors, files), errors


def test_an_adapter_with_a_frozen_teacher_is_trained_in_float32_beside_bf16(run: Run, files: Files) -> None:
    """Each micro-batch's gradient on its own, after a teacher pass that was the first forward of all."""
    gathering = "gradients summed every micro-batch"
    case = cases.Case(precision="bf16", cut="packed, 1 row", teacher="adapter, frozen", gathering=gathering)
    errors = compare.compare(case, run, files)
    assert compare.is_exact(case, errors, files), errors


def test_every_policy_loss_and_aggregation_that_verl_registers_is_in_the_matrix_or_refused() -> None:
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, agg_loss

    settings = [objective.actor for objective in cases.OBJECTIVES.values()]
    losses = {s.get("policy_loss", {}).get("loss_mode", "hdpo") for s in settings}
    refused = "bypass_mode"
    assert losses | {refused} == set(POLICY_LOSS_REGISTRY) | {"hdpo"}
    assert list(refusals(composed(f"{ACTOR}.policy_loss.loss_mode={refused}")))
    named = set(re.findall(r'"((?:token|seq)-[a-z-]+)"', inspect.getsource(agg_loss)))
    assert named == {s.get("loss_agg_mode", "token-mean") for s in settings} and len(named) == 5


@pytest.mark.parametrize("name", [n for n, o in cases.OBJECTIVES.items() if o.per_micro_batch])
def test_what_depends_on_the_cut_into_micro_batches_is_left_out_where_it_is_refused(name: str) -> None:
    actor = cases.OBJECTIVES[name].actor
    loss = actor.get("policy_loss", {}).get("loss_mode", "hdpo")
    settings = [
        f"{ACTOR}.policy_loss.loss_mode={loss}",
        f"{ACTOR}.loss_agg_mode={actor.get('loss_agg_mode', 'token-mean')}",
    ]
    assert not list(refusals(composed(*settings)))
    budgets = (f"{ACTOR}.ppo_max_token_len_per_gpu", "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu")
    [message] = refusals(composed(*settings, f"{ACTOR}.use_dynamic_bsz=true", *(f"{key}=4096" for key in budgets)))
    assert "micro-batch" in message
    assert cases.is_refused([("objective", name), ("cut", "packed, dynamic")])
    assert not cases.is_refused([("objective", name), ("cut", "packed, 1 row")])


def test_the_command_runs_every_pair_of_choices_that_is_not_refused() -> None:
    found = set()
    for case in cases.every(2):
        choices = [(name, getattr(case, name)) for name in cases.FACTORS]
        assert not cases.is_refused(choices)
        found |= set(itertools.combinations(choices, 2))
    pairs = itertools.combinations(cases.FACTORS, 2)
    wanted = {((a, x), (b, y)) for a, b in pairs for x in cases.FACTORS[a] for y in cases.FACTORS[b]}
    assert found == {pair for pair in wanted if not cases.is_refused(pair)}


def test_weights_that_are_put_away_read_as_nan_until_they_are_fetched() -> None:
    engine = SimpleNamespace(module=torch.nn.Linear(2, 2))
    before = engine.module(torch.ones(2))
    offload.put_away(engine)
    assert engine.module(torch.ones(2)).isnan().all()
    with pytest.raises(AssertionError, match="once more"):
        offload.put_away(engine)
    offload.fetch(engine)
    assert torch.equal(engine.module(torch.ones(2)), before)
