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

ROOT = Path(__file__).parents[3]
# More words than one block of the kernels holds.
PROGRAM = """
import sys
from pathlib import Path
from benchmarks.gpu.correct import cases, check, check_protected
from benchmarks.gpu.recording import Record
from recipe.hdpo.algorithm import softmax_rows
record = Record(Path(sys.argv[1]), "correct", "cpu")
for name, case in cases(softmax_rows.softmax_kernels._BLOCK + 900, 40):
    selected = softmax_rows.softmax_rows(case.student_NV, case.rows_M, None)
    assert isinstance(selected, softmax_rows.KernelRows)
    check(record, name, case, "fp32", "cpu")
check_protected(record, "overwritten logits", case, "fp32", "cpu")
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
    assert len(figures) == 6 * 4 + 1
    assert [name for name, figure in figures.items() if not figure["holds"]] == []


def test_logits_that_are_overwritten_keep_their_copy(figures: dict[str, dict]) -> None:
    assert figures["overwritten logits"]["error_unprotected"] > 1e-3 > figures["overwritten logits"]["error"]


def test_without_the_interpreter_a_cpu_has_no_kernels_and_float64_never_has() -> None:
    assert not softmax_kernels.can_run_on(torch.zeros(1, 1))


def test_float64_stays_with_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert softmax_kernels.can_run_on(torch.zeros(1, 1))
    assert not softmax_kernels.can_run_on(torch.zeros(1, 1, dtype=torch.float64))
