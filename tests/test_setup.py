"""scripts/setup.sh: which Python it takes, what makes the environment, and what it does a second time. Interpreters are
shell scripts that answer for a version and write down what they are asked."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("bash", "awk", "cat", "cut", "df", "dirname", "grep", "mkdir", "rm", "sed", "sha256sum", "uname")
# The version check is told by `version_info`; -m venv makes an environment whose Python is this script again.
PYTHON = """#!{bash}
echo "{name} $*" >> {log}
case "$*" in
    *version_info*) exit {unsuitable} ;;
    *ensurepip*) exit {no_venv} ;;
    "-m venv "*) mkdir -p "$3/bin" && cat "$0" > "$3/bin/python" && {chmod} +x "$3/bin/python" ;;
    --version) echo "Python {name}" ;;
esac
"""
UV = """#!{bash}
echo "uv $*" >> {log}
mkdir -p .venv/bin && cat {python} > .venv/bin/python && {chmod} +x .venv/bin/python
"""


class Machine:
    """A copy of the repository's set-up files, and a PATH that holds nothing but tools and the interpreters given."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin, self.log = folder / "repo", folder / "bin", folder / "log"
        self.bin.mkdir()
        for name in ("scripts", "requirements"):
            shutil.copytree(ROOT / name, self.root / name)
        shutil.copy(ROOT / "pyproject.toml", self.root)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.words = {"bash": shutil.which("bash"), "chmod": shutil.which("chmod"), "log": self.log}

    def add(self, name: str, suits: bool, venv: bool = True, on_path: bool = True) -> Path:
        path = (self.bin if on_path else self.root) / name
        path.write_text(PYTHON.format(**self.words, name=name, unsuitable=int(not suits), no_venv=int(not venv)))
        path.chmod(0o755)
        return path

    def add_uv(self) -> None:
        python = self.add("from_uv", suits=True, on_path=False)
        path = self.bin / "uv"
        path.write_text(UV.format(**self.words, python=python))
        path.chmod(0o755)

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.bin / "bash"), str(self.root / "scripts/setup.sh")]
        return subprocess.run(command, env={"PATH": str(self.bin), **env}, capture_output=True, text=True)

    def asked(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("name", ["python3.11", "python3.12", "python3", "python"])
def test_a_python_of_either_version_makes_the_environment(machine: Machine, name: str) -> None:
    machine.add(name, suits=True)
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert f"{name} -m venv .venv" in machine.asked()
    torch = re.search(r"^torch==.*", (ROOT / "requirements/cpu.in").read_text(), re.MULTILINE)[0]
    order = [f"install --no-deps {torch}", "--require-hashes -r requirements/cpu.lock", "--editable ."]
    positions = [machine.asked().index(words) for words in order]
    assert positions == sorted(positions)


def test_a_python_of_another_version_is_passed_over(machine: Machine) -> None:
    machine.add("python3", suits=False)
    machine.add("python", suits=True)
    assert machine.run().returncode == 0
    assert "python -m venv .venv" in machine.asked() and "python3 -m venv" not in machine.asked()


def test_without_either_python_uv_makes_the_environment_with_pip_in_it(machine: Machine) -> None:
    machine.add("python3", suits=False)
    machine.add_uv()
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "uv venv --quiet --seed --python 3.12 .venv" in machine.asked()
    assert "from_uv -m pip" in machine.asked()


def test_a_python_without_its_venv_module_is_given_to_uv(machine: Machine) -> None:
    machine.add("python3.11", suits=True, venv=False)
    failed = machine.run()
    assert failed.returncode == 1 and "python3.11 has no venv module" in failed.stderr
    machine.add_uv()
    assert machine.run().returncode == 0
    assert "uv venv --quiet --seed --python python3.11 .venv" in machine.asked()


def test_without_python_and_uv_one_error_says_what_to_install_and_the_old_environment_stays(machine: Machine) -> None:
    machine.add("python3", suits=False)
    old = machine.root / ".venv/bin/python"
    old.parent.mkdir(parents=True)
    old.touch()
    done = machine.run()
    assert done.returncode == 1 and old.exists()
    assert done.stderr.startswith("setup: Python 3.11 or 3.12 is needed") and "Found: Python python3." in done.stderr
    assert "or uv, which fetches one" in done.stderr


def test_a_python_that_is_named_and_does_not_suit_is_refused(machine: Machine) -> None:
    machine.add("python3.12", suits=True)
    other = machine.add("python3.13", suits=False)
    done = machine.run(PYTHON=str(other))
    assert done.returncode == 1 and f"PYTHON={other} is not Python 3.11 or 3.12" in done.stderr
    assert "venv" not in machine.asked()


def test_an_environment_of_somebody_elses_is_left_alone_and_one_that_was_not_finished_is_made_anew(
    machine: Machine,
) -> None:
    machine.add("python3.11", suits=True)
    mine = machine.root / ".venv/bin/mine"
    mine.parent.mkdir(parents=True)
    mine.touch()
    done = machine.run()
    assert done.returncode == 1 and mine.exists() and "-m venv .venv" not in machine.asked()
    assert done.stderr.startswith("setup: .venv is there and was not made by this script")
    (machine.root / ".venv/.made_by_setup").touch()
    assert machine.run().returncode == 0 and not mine.exists()


def test_a_second_run_does_nothing_and_another_entry_point_does_not_install_the_stack_again(machine: Machine) -> None:
    machine.add("python3.11", suits=True)
    assert machine.run().returncode == 0
    before = machine.asked()
    again = machine.run()
    assert again.stdout == "setup: .venv is complete\n" and machine.asked() == before
    with (machine.root / "pyproject.toml").open("a") as file:
        file.write("# another command\n")
    assert machine.run().returncode == 0
    new = machine.asked().removeprefix(before)
    assert "--editable ." in new and "cpu.lock" not in new and "-m venv" not in new
    with (machine.root / "requirements/cpu.lock").open("a") as file:
        file.write("# another package\n")
    assert machine.run().returncode == 0
    assert "-m venv .venv" in machine.asked().removeprefix(before + new)


def test_the_lock_has_no_package_for_one_python_alone() -> None:
    """scripts/lock.sh resolves it for 3.11 and 3.12 and refuses a difference; a marker would be one."""
    pins = [line for line in (ROOT / "requirements/cpu.lock").read_text().splitlines() if "==" in line]
    assert len(pins) > 200 and not [pin for pin in pins if ";" in pin]
