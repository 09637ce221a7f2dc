"""Dependencies run one way: the pure layer imports without verl, Ray and vLLM."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = ["", ".advantage", ".cliff", ".config", ".divergence", ".math_answer", ".metrics", ".privileged", ".topk"]
PURE += [".collapse", ".history", ".seeding", ".evaluation.passk", ".evaluation.intervals", ".evaluation.summary"]
PURE += [".evaluation.pvalues"]
BLOCKED = ["verl", "ray", "vllm", "transfer_queue", "tensordict", "transformers"]


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_import_with_the_stack_blocked(module: str) -> None:
    block = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r})); import recipe.hdpo{module}"
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_plugin_makes_import_verl_no_heavier() -> None:
    heavy = ["verl.trainer.ppo.core_algos", "verl.trainer.ppo.v1", "recipe.hdpo.trainer", "recipe.hdpo.loss", "vllm"]
    code = f"import sys, verl; print([m for m in {heavy!r} if m in sys.modules], 'recipe.hdpo.plugin' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.stdout.strip().endswith("[] True"), done.stdout + done.stderr
