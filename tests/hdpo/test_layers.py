"""Dependencies run one way: the pure layer imports without verl, Ray and vLLM."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Whole folders, and the files beside them that a pure folder may import.
PURE_FOLDERS = ("algorithm", "answers", "tracking", "data")
PURE_FILES = ("", ".config", ".config.keys", ".math_answer", ".evaluation.intervals", ".evaluation.passk")
PURE_FILES += (".evaluation.pvalues", ".evaluation.summary")
BLOCKED = ("verl", "ray", "vllm", "transfer_queue", "tensordict", "transformers")


def test_pure_folders_import_with_the_stack_blocked() -> None:
    package = ROOT / "recipe/hdpo"
    files = [file for folder in PURE_FOLDERS for file in (package / folder).glob("*.py")]
    modules = ["." + ".".join(file.relative_to(package).with_suffix("").parts) for file in files]
    assert {".algorithm.divergence", ".tracking.run_history", ".data.rows"} <= set(modules)
    names = [f"recipe.hdpo{module}" for module in (*PURE_FILES, *modules)]
    code = f"import importlib, sys; sys.modules.update(dict.fromkeys({BLOCKED!r}))\n"
    code += f"for name in {names!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_plugin_makes_import_verl_no_heavier() -> None:
    heavy = [
        "verl.trainer.ppo.core_algos",
        "verl.trainer.ppo.v1",
        "recipe.hdpo.training.trainer",
        "recipe.hdpo.training.loss",
        "vllm",
    ]
    code = f"import sys, verl; print([m for m in {heavy!r} if m in sys.modules], 'recipe.hdpo.plugin' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.stdout.strip().endswith("[] True"), done.stdout + done.stderr


@pytest.mark.parametrize("plugins", ["", "none"], ids=["with the plug-in", "without it"])
def test_warnings_are_heard_after_vllms_server_was_imported(plugins: str) -> None:
    """Without the plug-in they are not; when that changes upstream, the plug-in's setting can go."""
    warning = "import logging; logging.getLogger('recipe.hdpo.tracking.teacher_collapse').warning('HEARD')"
    code = f"import verl, vllm.entrypoints.openai.api_server; {warning}"
    quiet = {name: value for name, value in os.environ.items() if not name.endswith("LOG_LEVEL")}
    env = {**quiet, "VERL_USE_EXTERNAL_PLUGINS": plugins, "VERL_PLATFORM": ""}
    if not plugins:
        del env["VERL_USE_EXTERNAL_PLUGINS"]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", env=env)
    assert done.returncode == 0, done.stderr
    assert ("HEARD" in done.stderr) == (not plugins), done.stderr
