"""The distributions and their commands, and what is said where another `recipe` hides HDPO."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import tomllib

from recipe.hdpo import __version__
from recipe.hdpo.config.rules import VERL_VERSION

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv*", "outputs", "__pycache__", "*.egg-info", ".*_cache", "build", "dist"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """File names in the source distribution, and in the wheel that is built from it, as pip builds it."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCE)
    sdist = folder / _build("build_sdist", folder / "source", folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wheel = folder / _build("build_wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)
    return inside, set(zipfile.ZipFile(wheel).namelist())


def _build(hook: str, source: Path, out: Path) -> str:
    code = f"from setuptools import build_meta; print(build_meta.{hook}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def files(*folders: str) -> set[str]:
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def test_the_source_distribution_holds_tests_data_preparation_and_examples(built: tuple[set[str], set[str]]) -> None:
    wanted = files("recipe", "hydra_plugins", "tests", "data_preprocess", "examples", "benchmarks")
    wanted |= files("scripts", "requirements")
    assert len(wanted) > 150 and wanted <= built[0]
    assert {"Makefile", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", ".ci/run"} <= built[0]


def test_the_wheel_holds_every_file_of_the_package_and_nothing_that_other_packages_may_have(
    built: tuple[set[str], set[str]],
) -> None:
    wheel = {name for name in built[1] if ".dist-info/" not in name}
    assert wheel == files("recipe", "hydra_plugins") | {"verl_recipe_hdpo.py"}
    assert "recipe/hdpo/py.typed" in wheel and not {"recipe/__init__.py", "hydra_plugins/__init__.py"} & wheel


def test_the_recipes_folder_names_the_verl_and_the_packages_that_the_project_needs() -> None:
    """As verl's collection of recipes wants it: a file of NAME=VALUE lines beside the README."""
    lines = (ROOT / "recipe/hdpo/REQUIRED_VERL.txt").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert (
        fields["MODE"] == "pinned_tag" and fields["TAG"] == f"v{VERL_VERSION}" and fields["UPSTREAM"].endswith(".git")
    )
    assert fields["GIT_SETUP"] == f"git clone --branch {fields['TAG']} {fields['UPSTREAM']} verl"
    pip, install, *packages = shlex.split(fields["PIP_INSTALL"])
    # verl brings Hydra.
    assert (pip, install) == ("pip", "install") and {*packages, "hydra-core"} == set(PROJECT["dependencies"])
    readme = (ROOT / "recipe/hdpo/README.md").read_text()
    assert "## Required `verl` version" in readme and "(REQUIRED_VERL.txt)" in readme
    named = {name.rstrip("/") for name in re.findall(r"`([\w/.]+(?:/|\.sh|\.py))`", readme)} - {"recipe/hdpo", "hdpo"}
    assert len(named) > 10 and all((ROOT / "recipe/hdpo" / name).exists() for name in named)


def test_commands_and_plugin_are_installed_as_the_project_names_them() -> None:
    for group, named in (
        ("console_scripts", PROJECT["scripts"]),
        ("verl.plugins", PROJECT["entry-points"]["verl.plugins"]),
    ):
        installed = {point.name: point.value for point in entry_points(group=group) if point.name in named}
        assert installed == named


@pytest.mark.parametrize("command", sorted(PROJECT["scripts"]))
def test_every_command_answers_help(command: str) -> None:
    path = Path(sysconfig.get_path("scripts")) / command
    done = subprocess.run([str(path), "--help"], capture_output=True, text=True)
    module = PROJECT["scripts"][command].removesuffix(":main").removesuffix(".__main__")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: python -m {module} ")


def test_python_m_recipe_hdpo_lists_every_command_and_control() -> None:
    done = subprocess.run([sys.executable, "-m", "recipe.hdpo"], cwd=ROOT, capture_output=True, text=True, check=True)
    controls = {path.stem for path in (ROOT / "recipe/hdpo/config/control").glob("*.yaml")}
    assert len(controls) > 5
    for word in {__version__, *PROJECT["scripts"], *controls, "verl.trainer.main_ppo", "hdpo_trainer"}:
        assert word in done.stdout, word


def started_in(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Python in a folder, with HDPO found as a plain installation is: -S keeps out the editable one, which nothing can
    hide. VERL_PLATFORM is the GPU user's: none."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{sysconfig.get_path('purelib')}", "VERL_PLATFORM": ""}
    return subprocess.run([sys.executable, "-S", "-c", code], cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "code"),
    [("recipe/__init__.py", "import verl"), ("recipe.py", "import verl_recipe_hdpo")],
    ids=["package, through verl", "module"],
)
def test_a_recipe_of_the_users_own_that_hides_hdpo_is_named(name: str, code: str, tmp_path: Path) -> None:
    own = tmp_path / name
    own.parent.mkdir(exist_ok=True)
    own.touch()
    done = started_in(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert f"`import recipe` finds {own}, which hides recipe.hdpo" in done.stderr
    assert f"keep {tmp_path} out of PYTHONPATH" in done.stderr


def test_a_folder_recipe_without_init_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "recipe" / "another").mkdir(parents=True)
    (tmp_path / "recipe" / "another" / "trainer.py").touch()
    code = "import sys, verl_recipe_hdpo, recipe.another.trainer; print('recipe.hdpo.plugin' in sys.modules)"
    done = started_in(tmp_path, code)
    assert done.stdout.strip() == "True" and "hides" not in done.stderr, done.stderr
