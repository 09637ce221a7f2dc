"""A run's files: ``hdpo_groups/STEP.jsonl``, verl's ``STEP.jsonl``, ``hdpo_kept/STEP.jsonl``. One step at a time."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from recipe.hdpo.tracking.group_lines import GROUP_FOLDER
from recipe.hdpo.tracking.kept_text import KEPT_FOLDER

Line = dict[str, Any]


def find_run(folder: Path) -> Path:
    """The ``trainer.rollout_data_dir`` at or below a folder.

    Raises:
        ValueError: there is none, or several.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    if (folder / GROUP_FOLDER).is_dir():
        return folder
    found = sorted(path.parent for path in folder.glob(f"**/{GROUP_FOLDER}") if path.is_dir())
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{folder} holds several runs; name one of {', '.join(map(str, found))}")
    raise ValueError(
        f"{folder} holds no {GROUP_FOLDER}/STEP.jsonl. A run writes them where trainer.rollout_data_dir=DIR is set, "
        "one file a step"
    )


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a JSONL file; none where it is not there.

    Raises:
        ValueError: a line is no JSON object; names file and line.
    """
    if not path.exists():
        return
    with open(path, encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: no JSON ({error}). A run that was killed leaves such a line; remove it"
                ) from error
            if not isinstance(line, dict):
                raise ValueError(f"{path}, line {number}: a JSON object is expected, here stands {text[:80]!r}")
            yield line


class Run:
    """The files of a run.

    Args:
        folder: its ``trainer.rollout_data_dir``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps = sorted(int(path.stem) for path in (folder / GROUP_FOLDER).glob("*.jsonl") if path.stem.isdigit())
        # Of verl's own file: whether there is one for each step.
        self.without_rollouts = [step for step in self.steps if not (folder / f"{step}.jsonl").exists()]

    def groups(self, step: int) -> Iterator[Line]:
        """What became of the step's prompts."""
        yield from lines_of(self.folder / GROUP_FOLDER / f"{step}.jsonl")

    def visits(self) -> tuple[dict[str, list[list[Any]]], set[str]]:
        """By problem its visits, in order of steps: [step, outcome, successes, rollouts]; and the uids of the groups
        whose cliffs were re-issued, under uids of their own."""
        found: dict[str, list[list[Any]]] = defaultdict(list)
        reissued = set()
        for step in self.steps:
            for line in self.groups(step):
                if line["reissued"]:
                    reissued.add(line["cliff_uid"])
                else:
                    outcome = "cliff" if line["cliff"] else "solved" if line["solved"] else "unknown"
                    found[line["problem"]].append([step, outcome, line["successes"], line["size"]])
        return found, reissued

    def rollouts(self, step: int, uids: Collection[str]) -> dict[str, list[Line]]:
        """verl's lines of a step's groups, by uid, in the order of the rollouts' numbers."""
        return self._by_uid(self.folder / f"{step}.jsonl", "uid", uids)

    def kept(self, step: int) -> dict[str, Line]:
        """The step's kept trajectories by key."""
        return {line["key"]: line for line in lines_of(self.folder / KEPT_FOLDER / f"{step}.jsonl")}

    @staticmethod
    def _by_uid(path: Path, name: str, uids: Collection[str]) -> dict[str, list[Line]]:
        wanted, found = set(uids), defaultdict(list)
        for line in lines_of(path):
            # verl's key of a rollout: uid, number, output.
            uid, number, _ = str(line[name]).rsplit("_", 2)
            if uid in wanted:
                found[uid].append((int(number), line))
        return {uid: [line for _, line in sorted(rows, key=lambda row: row[0])] for uid, rows in found.items()}
