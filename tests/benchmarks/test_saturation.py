"""Gradients of kept tokens by their divergence: against autograd, and of a run's own files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import saturation
from recipe.hdpo.cliffs.files import Run
from tests.hdpo.cliffs.made import make_run


@pytest.mark.parametrize("seed", range(5))
def test_the_norms_are_those_of_the_gradients_in_the_students_logits(seed: int) -> None:
    logits = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)
    p, q = torch.rand(6, dtype=torch.float64), logits.softmax(-1)
    p = p / p.sum()
    m = (p + q) / 2
    jsd = (torch.xlogy(p, p / m) + torch.xlogy(q, q / m)).sum() / 2
    kl = (torch.xlogy(p, p) - p * q.log()).sum()
    found = saturation.gradients(p.numpy(), q.detach().numpy())
    for name, value in (("jsd_gradient", jsd), ("kl_gradient", kl)):
        [gradient] = torch.autograd.grad(value, logits, retain_graph=True)
        assert found[name] == pytest.approx(float(gradient.norm()))


def test_an_event_that_the_student_rules_out_has_no_gradient_by_jsd_and_one_by_forward_kl() -> None:
    found = saturation.gradients(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert found == {"jsd_gradient": 0.0, "kl_gradient": pytest.approx(2**0.5)}


def test_tokens_are_counted_once_by_their_divergence_and_their_shares_add_up() -> None:
    found = [
        {"jsd": share * np.log(2), "q": 0.5, "jsd_gradient": 1.0, "kl_gradient": 2.0} for share in (0, 0.3, 0.95, 1)
    ]
    rows = saturation.rows_of(found)
    assert [row["tokens"] for row in rows] == [1, 1, 0, 2]
    assert sum(row["share_of_divergence"] for row in rows) == pytest.approx(1.0)
    assert rows[2]["jsd_gradient"] is None and rows[3]["kl_gradient"] == 2.0


def test_the_saturated_tokens_of_each_quarter_of_the_steps_add_up() -> None:
    jsds = {1: (1.0, 0.95), 2: (0.9, 0.1), 3: (0.2,), 7: (0.95, 0.0), 9: (0.0,)}
    found = [{"step": step, "jsd": share * np.log(2)} for step, shares in jsds.items() for share in shares]
    told = saturation.quarters(found)
    assert [(q["first"], q["last"], q["tokens"], q["saturated"]) for q in told] == [
        *((1, 2, 4, 3), (3, 3, 1, 0), (7, 7, 2, 1), (9, 9, 1, 0)),
    ]
    assert [q["tokens"] for q in saturation.quarters(found[:4])] == [2, 2]


def test_a_runs_recorded_tokens_are_read_and_written(tmp_path: Path, capsys) -> None:
    run = make_run(tmp_path / "rollouts")
    kept = [line for step in (1, 3) for line in Run(run).kept(step).values()]
    count = sum(len(line["hdpo_tokens"]["at"]) for line in kept if "hdpo_tokens" in line)
    assert saturation.main([str(run), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["tokens"] == count == sum(row["tokens"] for row in found["rows"]) > 0
    assert sum(quarter["tokens"] for quarter in found["quarters"]) == count
    told = capsys.readouterr().out
    assert "of all divergence" in told and "% in steps 1 to 1" in told
    (run / "hdpo_kept/1.jsonl").unlink()
    assert saturation.main([str(run)]) == 2 and "no token" in capsys.readouterr().err
