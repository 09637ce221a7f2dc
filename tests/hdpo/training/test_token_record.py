"""What is recorded of single tokens is what the loss was made of, and reaches its trajectory by its id."""

from __future__ import annotations

import pytest
import torch
from transfer_queue import KVBatchMeta

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.teacher_topk import teacher_topk
from recipe.hdpo.training import token_record
from recipe.hdpo.training.token_record import TOPS, WIDTH, keys_to_record
from tests.hdpo.training.brute_force import (
    TOPK,
    Run,
    assert_same,
    make_job,
    make_kept,
    make_rollouts,
    masked,
    response_logits,
)
from tests.hdpo.training.fsdp_ranks import Result, Row

SPLITS = {
    "1 rank, packed, many micro-batches": dict(ranks=1, max_tokens=32),
    "1 rank, padded": dict(ranks=1, packed=False, dynamic=False, micro_batch_size=2),
    "2 ranks, fused head": dict(ranks=2, max_tokens=32, hdpo={"fused_head": True}),
    "2 ranks, padded": dict(ranks=2, packed=False, dynamic=False),
    "2 ranks of one sequence-parallel group": dict(ranks=1, engine={"ulysses_sequence_parallel_size": 2}),
}


def by_row(result: Result) -> dict[int, torch.Tensor]:
    """The records, (M, WIDTH), by the number of the kept row; each row is recorded once over all ranks."""
    rows = [row for _, row, _ in result.records]
    assert len(set(rows)) == len(rows)
    return {row: record.unflatten(0, (-1, WIDTH)) for _, row, record in result.records}


def by_definition(model_dir: str, row: Row, k: int) -> torch.Tensor:
    """The record of one row, by a plain model."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    own = torch.tensor(row.response_mask).bool()
    with torch.no_grad():
        q = response_logits(model, row.prompt, row.response).log_softmax(-1)[own]
        p = response_logits(model, row.teacher_prompt, row.response).log_softmax(-1)[own]
    teacher = teacher_topk(p, k)
    found = topk_divergence(q, teacher, torch.arange(len(q)))
    chosen = q.gather(1, torch.tensor(row.response)[own, None])
    at_s = q.gather(1, teacher.ids)
    best = teacher.ids.gather(1, at_s.argsort(-1, descending=True))
    tops = [[ids[:, :TOPS].float(), *(x.gather(1, ids)[:, :TOPS] for x in (p, q))] for ids in (teacher.ids, best)]
    columns = [found.per_token, found.student_mass, found.teacher_mass, chosen[:, 0]]
    table = torch.full((len(q), 2, TOPS, 3), float("nan"))
    for i, parts in enumerate(tops):
        table[:, i, : parts[0].shape[1]] = torch.stack(parts, -1)
    return torch.cat([torch.stack(columns, 1), table.flatten(1)], 1)


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_records_are_the_definitions_numbers_and_their_mean_is_the_metric(
    run: Run, model_dir: str, split: dict
) -> None:
    """Three kept rows of different lengths, tokens of a tool in them: over two ranks one has fewer than the other."""
    rollouts, kept = make_rollouts(1, 4), masked(make_kept(2, 3), 5)
    options = dict(split)
    result = run(make_job(model_dir, options.pop("ranks"), rollouts, kept, recorded=(0, 1, 2), **options))
    found = by_row(result)
    assert sorted(found) == [0, 1, 2]
    for i, row in enumerate(kept):
        torch.testing.assert_close(found[i], by_definition(model_dir, row, TOPK), rtol=2e-4, atol=2e-5, equal_nan=True)
    divergence = torch.cat([record[:, 0] for record in found.values()])
    tokens = sum(sum(row.response_mask) for row in kept)
    assert len(divergence) == tokens
    assert result.metrics["hdpo/jsd_mean"][0] == pytest.approx(float(divergence.sum()) / tokens, rel=1e-5)
    assert result.metrics["hdpo/student_topk_mass"][0] == pytest.approx(
        float(sum(record[:, 1].sum() for record in found.values())) / tokens, rel=1e-5
    )


def test_recording_changes_no_gradient_and_only_what_is_wanted_is_recorded(run: Run, model_dir: str) -> None:
    rollouts, kept = make_rollouts(1, 4), make_kept(2, 3)
    silent = run(make_job(model_dir, 2, rollouts, kept))
    recorded = run(make_job(model_dir, 2, rollouts, kept, recorded=(2,)))
    assert silent.records == [] and list(by_row(recorded)) == [2]
    assert_same(recorded.gradients[0], silent.gradients[0], atol=1e-8)


def test_over_several_epochs_and_a_measurement_of_the_gradients_the_first_visit_is_recorded(
    run: Run, model_dir: str
) -> None:
    kept = make_kept(2, 2)
    job = make_job(
        model_dir, 1, make_rollouts(1, 2), kept, recorded=(0, 1), epochs=2, measure_gradients=True, mini_batch_size=1
    )
    for i, record in by_row(run(job)).items():
        expected = by_definition(model_dir, kept[i], TOPK)
        # One mini-batch each: the second is read by the student after one update, and by the teacher before it.
        assert len(record) == len(expected)
        torch.testing.assert_close(record[:, 4::3][:, :TOPS], expected[:, 4::3][:, :TOPS])


@pytest.mark.parametrize(
    ("hdpo", "k"), [({"topk": 2}, 2), ({"divergence.kind": "cross_entropy"}, 1)], ids=["top-2", "hard labels"]
)
def test_places_beyond_k_are_empty(run: Run, model_dir: str, hdpo: dict, k: int) -> None:
    job = make_job(model_dir, 1, make_rollouts(1, 2), make_kept(2, 1), recorded=(0,), hdpo=hdpo)
    [record] = by_row(run(job)).values()
    tops = record[:, 4:].unflatten(1, (2, TOPS, 3))
    assert not tops[:, :, :k].isnan().any() and tops[:, :, k:].isnan().all()


def test_a_step_records_as_many_whole_trajectories_as_its_limit_allows_and_at_least_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tags = [transfer.privileged_tag([1], [2], [3] * n) for n in (6, 4, 1)]
    kept = KVBatchMeta(["a_8_0", "b_8_0", "c_8_0"], tags, "train")
    for limit, expected in ((5, "a"), (9, "a"), (10, "ab"), (11, "abc")):
        monkeypatch.setattr(token_record, "MAX_TOKENS", limit)
        assert [key[0] for key in keys_to_record(kept)] == list(expected)
