"""Which checkpoint of verl's is whole, from which one a run goes on, and when the one that it went on from is deleted.

verl writes ``global_step_N`` in this order: ``hdpo_history.json`` (HDPO's), every rank's shards of the actor and of the
critic, ``data.pt``, an asynchronous trainer's prompts under way (``transfer_queue``), and last, beside the folder,
``latest_checkpointed_iteration.txt`` with N.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig, OmegaConf, open_dict
from verl.trainer.ppo.utils import need_critic
from verl.utils.checkpoint.checkpoint_manager import get_checkpoint_tracker_filename

from recipe.hdpo.config.checks import read_hdpo
from recipe.hdpo.config.keys import is_async
from recipe.hdpo.tracking.run_history import HISTORY_FILE
from recipe.hdpo.training.weight_average import FILE as AVERAGE

logger = logging.getLogger(__name__)

# verl's names of what is loaded, and the beginnings of the files that hold it.
FILES = {"model": "model", "optimizer": "optim", "extra": "extra_state"}
# An asynchronous trainer's prompts and rollouts under way, a folder that TransferQueue writes whole or not at all.
QUEUE = os.path.join("transfer_queue", "metadata.json")
CONFIGS = {"actor": "actor_rollout_ref.actor", "critic": "critic"}


def root(config: DictConfig) -> str:
    """The folder of all checkpoints of a run."""
    return os.path.abspath(config.trainer.default_local_dir)


def shards(config: DictConfig) -> list[str]:
    """The files of a checkpoint that resuming reads, relative to its folder: one of each kind for every rank."""
    size = config.trainer.n_gpus_per_node * config.trainer.nnodes
    parts = ["actor", "critic"] if need_critic(config) else ["actor"]
    others = [QUEUE] if is_async(config) else []
    hdpo = read_hdpo(config)
    if hdpo.reads_teacher and hdpo.teacher == "ema":
        others += [f"actor/{AVERAGE.format(size, rank)}" for rank in range(size)]
    return others + [
        f"{part}/{FILES[kind]}_world_size_{size}_rank_{rank}.pt"
        for part in parts
        for kind in OmegaConf.select(config, f"{CONFIGS[part]}.checkpoint.load_contents") or FILES
        if kind in FILES
        for rank in range(size)
    ]


def lacks(folder: str, files: list[str], *, marked: bool) -> list[str]:
    """What keeps a checkpoint folder from being whole; empty for a whole one.

    Args:
        files: see :func:`shards`.
        marked: whether verl's mark says that it was whole once. Then ``data.pt`` may be absent: removing it is how a
            user begins the data anew. The history may be absent too: verl alone writes none. And so may the prompts
            under way, of which a synchronous run has none, and an average of past weights, of which a run with another
            teacher has none: loading says so.
    """
    if not os.path.isdir(folder):
        return ["the folder itself"]
    files = [name for name in files if not (marked and name == QUEUE)]
    averages = {name for name in files if os.path.basename(name).startswith(AVERAGE.partition("{")[0])}
    needed = [name for name in files if not (marked and name in averages)]
    missing = [name for name in needed if not os.path.isfile(os.path.join(folder, name))]
    if not marked and not os.path.isfile(os.path.join(folder, "data.pt")):
        missing.append("data.pt")
    # torch.save writes a zip file, whose table stands at its end.
    there = [name for name in [*files, "data.pt"] if os.path.isfile(os.path.join(folder, name))]
    cut = [name for name in there if name != QUEUE and not zipfile.is_zipfile(os.path.join(folder, name))]
    if not _is_json(os.path.join(folder, HISTORY_FILE)):
        cut.append(HISTORY_FILE)
    return [*missing, *(f"the end of {name}" for name in cut)]


def _is_json(path: str) -> bool:
    if not os.path.exists(path):
        return True
    try:
        with open(path, encoding="utf-8") as file:
            json.load(file)
    except (ValueError, RecursionError):
        return False
    return True


def marked_step(folder: str) -> int | None:
    """The step in verl's mark; None without a mark, or where it was cut short."""
    try:
        with open(get_checkpoint_tracker_filename(folder), encoding="utf-8") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return None


def steps_in(folder: str) -> list[int]:
    """The steps of the checkpoint folders, ascending; links are not counted."""
    if not os.path.isdir(folder):
        return []
    found = [(entry, re.fullmatch(r"global_step_(\d+)", entry.name)) for entry in os.scandir(folder)]
    return sorted(int(match[1]) for entry, match in found if match and entry.is_dir(follow_symlinks=False))


def newest_whole(folder: str, files: list[str]) -> tuple[str | None, dict[int, list[str]]]:
    """The checkpoint to go on from, and what those lack that had to be passed over, by step.

    The newest whole one that verl's mark covers; where there is none, the newest whole one behind the mark.
    """
    mark = marked_step(folder)
    marked = [step for step in steps_in(folder) if mark is not None and step <= mark]
    later = [step for step in steps_in(folder) if mark is None or step > mark]
    passed_over = {} if mark is None or mark in marked else {mark: ["the folder itself"]}
    for steps in (marked, later):
        for step in reversed(steps):
            path = os.path.join(folder, f"global_step_{step}")
            missing = lacks(path, files, marked=steps is marked)
            if not missing:
                return path, passed_over
            passed_over[step] = missing
    return None, passed_over


def last_whole_line(config: DictConfig) -> str:
    """For a message that ends a run."""
    path, _ = newest_whole(root(config), shards(config))
    if path is None:
        return f"There is no whole checkpoint in {root(config)}"
    return f"The last whole checkpoint is {path}: the same command goes on from it"


def check_resume(config: DictConfig) -> str | None:
    """Choose the checkpoint that the run goes on from, before anything is started.

    Returns:
        The folder to load in the place of the one that verl would load; None where verl is right.

    Raises:
        ValueError: there are checkpoints and none is whole, or ``trainer.resume_from_path`` names one that is not.
    """
    settings, files = config.trainer, shards(config)
    if settings.resume_mode == "resume_path" and "global_step_" in str(settings.resume_from_path):
        missing = lacks(os.path.abspath(settings.resume_from_path), files, marked=True)
        if missing:
            raise ValueError(
                f"trainer.resume_from_path={settings.resume_from_path} is no whole checkpoint: {_lacks(missing)}"
            )
    if settings.resume_mode != "auto" or not steps_in(root(config)):
        return None
    path, passed_over = newest_whole(root(config), files)
    found = "; ".join(f"global_step_{step}: {_lacks(missing)}" for step, missing in list(passed_over.items())[:5])
    if path is None:
        raise ValueError(
            f"no checkpoint in {root(config)} is whole, so there is nothing to go on from. {found}. A run with another "
            "number of ranks writes other names; several nodes need a folder that all of them share. Otherwise name a "
            "checkpoint by trainer.resume_mode=resume_path, or move that folder away to start from step 0"
        )
    if os.path.basename(path) == f"global_step_{marked_step(root(config))}":
        return None
    logger.warning(f"the run goes on from {path}, the newest whole checkpoint. {found}")
    return path


def _lacks(missing: list[str]) -> str:
    more = f" and {len(missing) - 3} more files" if len(missing) > 3 else ""
    return f"it lacks {', '.join(missing[:3])}{more}"


@contextmanager
def resuming_from(config: DictConfig, path: str | None) -> Iterator[None]:
    """While verl loads: it takes the folder named here, where one is named."""
    if path is None:
        yield
        return
    before = {key: config.trainer[key] for key in ("resume_mode", "resume_from_path")}
    with open_dict(config):
        config.trainer.update({"resume_mode": "resume_path", "resume_from_path": path})
        try:
            yield
        finally:
            config.trainer.update(before)


def delete_in_turn(config: DictConfig, resumed: int, saved: int) -> None:
    """After a save: delete what verl will never delete, since it keeps count of its own saves only.

    These are the actors (and critics) of this run's folder up to the step that it went on from. They go as verl's do,
    oldest first, once ``trainer.max_actor_ckpt_to_keep`` newer whole ones are there.

    Args:
        resumed: the step that the run went on from; 0 for a run that began anew, or from another folder.
        saved: the step that was saved.
    """
    folder, files = root(config), shards(config)
    if resumed == 0 or lacks(os.path.join(folder, f"global_step_{saved}"), files, marked=False):
        return
    paths = {step: os.path.join(folder, f"global_step_{step}") for step in steps_in(folder) if step <= saved}
    whole = [step for step, path in paths.items() if not lacks(path, files, marked=True)]
    for part in CONFIGS:
        keep = config.trainer.get(f"max_{part}_ckpt_to_keep")
        if config.trainer.get("remove_previous_ckpt_in_save"):
            keep = 1
        for step in whole[:-keep] if keep and keep > 0 else []:
            path = os.path.join(paths[step], part)
            if step <= resumed and os.path.isdir(path) and not os.path.islink(path):
                logger.warning(f"deleting {path}: trainer.max_{part}_ckpt_to_keep={keep}")
                shutil.rmtree(path)
