"""The Triton kernels without a GPU, by Triton's own interpreter: the same cases that a card is checked with.

The interpreter cuts float32 to bfloat16 where a card rounds, so bf16 is left to ``python -m benchmarks.gpu``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recipe.hdpo.algorithm import softmax_kernels

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
# More words than one block of the kernels holds.
PROGRAM = """
import sys
from pathlib import Path
from benchmarks.gpu.correct import cases, check, check_protected
from benchmarks.gpu import head_correct
from benchmarks.gpu.recording import Record
from recipe.hdpo.algorithm import softmax_rows
record = Record(Path(sys.argv[1]), "correct", "cpu")
for name, case in cases(softmax_rows.softmax_kernels._BLOCK + 900, 40):
    selected = softmax_rows.softmax_rows(case.student_NV, case.rows_M, None)
    assert isinstance(selected, softmax_rows.KernelRows)
    check(record, name, case, "fp32", "cpu")
check_protected(record, "overwritten logits", case, "fp32", "cpu")
import torch
logits = 3 * torch.randn(4, softmax_rows.softmax_kernels._BLOCK + 900, dtype=torch.float32)
logits[1, 100:] = -torch.inf
logits[2, :-100] = -torch.inf
rows = softmax_rows.softmax_rows(logits, torch.tensor([3, 1, 2]), None)
log_z, entropy = rows.normaliser(slice(0, 3), True)
exact = logits[[3, 1, 2]].double()
errors = log_z - exact.logsumexp(-1), entropy - torch.special.entr(exact.softmax(-1)).sum(-1)
record.add("normaliser", error=float(torch.stack(errors).abs().max()))
head_correct.TOKENS, head_correct.CHUNK = 12, 5
head_correct.check_all(record, "cpu", 500, 16, dtypes=("fp32",))
record.finish()
"""


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Errors of every case, computed by the interpreted kernels."""
    path = tmp_path_factory.mktemp("kernels") / "correct.json"
    env = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", PROGRAM, str(path)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())["figures"]


def test_values_and_gradients_equal_float64_by_definition(figures: dict[str, dict]) -> None:
    assert len(figures) == 6 * 4 + 1 + 1 + (1 + 3 * 2 * 2)
    assert [name for name, figure in figures.items() if not figure.get("holds", True)] == []


def test_the_normaliser_and_the_entropy_of_long_rows_with_masked_words_are_exact(figures: dict[str, dict]) -> None:
    assert figures["normaliser"]["error"] < 1e-5


def test_the_fused_head_runs_by_the_kernels(figures: dict[str, dict]) -> None:
    ways = [name.split(", ")[-1] for name in figures if name.startswith(("jsd, ", "forward_kl, ", "reverse_kl, "))]
    assert ways.count("kernels") == ways.count("PyTorch") == 6


def test_logits_that_are_overwritten_keep_their_copy(figures: dict[str, dict]) -> None:
    assert figures["overwritten logits"]["error_unprotected"] > 1e-3 > figures["overwritten logits"]["error"]


def test_without_the_interpreter_a_cpu_has_no_kernels_and_float64_never_has() -> None:
    assert not softmax_kernels.can_run_on(torch.zeros(1, 1))


def test_float64_stays_with_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert softmax_kernels.can_run_on(torch.zeros(1, 1))
    assert not softmax_kernels.can_run_on(torch.zeros(1, 1, dtype=torch.float64))
