"""Dependencies run one way: the pure layer imports without verl, Ray and vLLM."""

import subprocess
import sys
from pathlib import Path

from tests.hdpo.fresh_interpreter import WARNING

ROOT = Path(__file__).parents[2]
# Whole folders, and the files beside them that a pure folder may import.
PURE_FOLDERS = ("algorithm", "answers", "tracking", "data", "preflight", "cliffs")
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


def test_the_plugin_makes_import_verl_no_heavier(with_plugin: dict[str, str]) -> None:
    assert with_plugin["import verl"].splitlines()[0] == "[] True"


def test_warnings_are_heard_after_vllms_server_was_imported(with_plugin: dict[str, str]) -> None:
    assert WARNING in with_plugin["vLLM's server"]


def test_without_the_plug_in_what_vllms_server_imports_would_silence_warnings(
    with_plugin: dict[str, str], without_plugin: dict[str, str]
) -> None:
    """When that changes upstream, the plug-in's setting can go."""
    assert with_plugin["vLLM's server"].splitlines()[0] == "True"
    assert WARNING in without_plugin["before the silencer"]
    assert WARNING not in without_plugin["after the silencer"]
