"""What only an interpreter of its own shows, with the plug-in and without: what importing verl brings along, whether
warnings are heard, and where verl's own ``main_ppo`` stops.

Importing verl and vLLM takes 10 to 20 seconds, so each of the two interpreters shows several facts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run

from tests.hdpo.composed_config import NEEDED

WARNING = "HEARD BY THE USER"
HEAVY = ("verl.trainer.ppo.core_algos", "verl.trainer.ppo.v1", "vllm")
HEAVY += ("recipe.hdpo.training.trainer", "recipe.hdpo.training.loss")
# The package by which vLLM's server silences the root logger.
SILENCER = "model_hosting_container_standards.sagemaker"

# The ways to switch HDPO on: by one flag on a command of one's own, by the recipe's config, by three flags, and by one
# flag on a sweep.
WAYS_IN = {
    "one flag": ("+use=hdpo",),
    "recipe's config": ("--config-path", "pkg://recipe.hdpo.config", "--config-name", "hdpo_trainer"),
    "flags": ("hydra.searchpath=[pkg://recipe.hdpo.config]", "+hdpo=default", "+use=hdpo"),
    "sweep": ("-m", "+use=hdpo", "hdpo.topk=8,16"),
}

# Launches that stop for another reason: knobs without the trainer, and data and model that are not there.
STOPS = {
    "knobs alone": ("+hdpo=default",),
    "nothing there": (
        *("+use=hdpo", "algorithm.adv_estimator=grpo", "data.train_files=[/nowhere.parquet]"),
        *("actor_rollout_ref.rollout.name=vllm", "actor_rollout_ref.rollout.n=4"),
    ),
}

_MARK = "=== fact: "
_HELPERS = f"""
import logging, runpy, sys

def fact(name):
    for stream in (sys.stdout, sys.stderr):
        print({_MARK!r} + name, file=stream, flush=True)

def warn():
    logging.getLogger("recipe.hdpo.tracking.teacher_collapse").warning({WARNING!r})

def main_ppo(*arguments):
    '''python -m verl.trainer.main_ppo'''
    sys.argv = ["main_ppo", *arguments]
    try:
        runpy.run_module("verl.trainer.main_ppo", run_name="__main__")
        print("not stopped")
    except SystemExit as stop:
        # A text is what Python prints at its end, with exit code 1.
        print("stopped:", stop.code if isinstance(stop.code, str) else repr(stop.code), file=sys.stderr)
"""


def with_plugin(folder: Path, env: dict[str, str]) -> dict[str, str]:
    """What was said at each fact. ``folder`` is for Hydra's files."""
    program = f"""
fact("import verl")
import verl
print([m for m in {HEAVY!r} if m in sys.modules], "recipe.hdpo.plugin" in sys.modules)
import vllm.entrypoints.openai.api_server
fact("vLLM's server")
print({SILENCER!r} in sys.modules)
warn()
"""
    for name, way_in in WAYS_IN.items():
        folders = (f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}")
        arguments = (*way_in, *NEEDED, "algorithm.filter_groups.enable=true", *folders)
        program += f"fact({name!r})\nmain_ppo(*{arguments!r})\n"
    for name, flags in STOPS.items():
        program += f"fact({name!r})\nmain_ppo(*{(*flags, *NEEDED, f'hydra.run.dir={folder}')!r})\n"
    return _said(program, env)


def without_plugin(folder: Path, env: dict[str, str]) -> dict[str, str]:
    """The same where verl was told to load no plug-in; it has no platform "cpu" then either."""
    arguments = (*WAYS_IN["recipe's config"], *NEEDED, f"hydra.run.dir={folder}")
    program = f"""
import verl
fact("before the silencer")
warn()
import {SILENCER}
fact("after the silencer")
warn()
fact("recipe's config")
main_ppo(*{arguments!r})
"""
    return _said(program, env | {"VERL_USE_EXTERNAL_PLUGINS": "none"})


def _said(program: str, env: dict[str, str]) -> dict[str, str]:
    """Fact -> what was printed, on standard output and then on standard error; away from this checkout."""
    env = {name: value for name, value in env.items() if not name.endswith("LOG_LEVEL")} | {"VERL_PLATFORM": ""}
    done = run([sys.executable, "-c", _HELPERS + program], capture_output=True, text=True, cwd="/", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, str] = {}
    for stream in (done.stdout, done.stderr):
        for part in stream.split(_MARK)[1:]:
            name, _, said = part.partition("\n")
            found[name] = found.get(name, "") + said
    return found
