"""The commands that the scripts' docstrings name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^    python ((?:-m )?data_preprocess[/.]\S+)", re.MULTILINE)
COMMANDS = sorted({c for path in (ROOT / "data_preprocess").glob("*.py") for c in COMMAND.findall(path.read_text())})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_starts_from_the_checkout(command):
    done = subprocess.run(
        [sys.executable, *command.split(), "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "--out" in done.stdout, done.stderr


def test_every_script_names_its_command():
    scripts = {p.stem for p in (ROOT / "data_preprocess").glob("*.py") if "__main__" in p.read_text()}
    assert {re.split(r"[/.]", command.removesuffix(".py"))[-1] for command in COMMANDS} == scripts
