"""The files of kept trajectories, also where a run goes on from an earlier step."""

from __future__ import annotations

import json
from pathlib import Path

from recipe.hdpo.tracking.kept_text import KEPT_FOLDER, kept_files, write_kept


def test_every_step_has_a_file_and_one_that_is_made_again_replaces_its_own(tmp_path: Path) -> None:
    folder = str(tmp_path / "rollouts")
    for step in (2, 9, 10, 9):
        write_kept(folder, step, [{"key": f"k{i}", "response": f"é{i}\nx"} for i in range(step)])
    assert [path.name for path in kept_files(folder)] == ["2.jsonl", "9.jsonl", "10.jsonl"]
    assert sorted(path.name for path in Path(folder, KEPT_FOLDER).iterdir()) == ["10.jsonl", "2.jsonl", "9.jsonl"]
    lines = [json.loads(line) for line in kept_files(folder)[1].read_text(encoding="utf-8").splitlines()]
    assert lines == [{"step": 9, "key": f"k{i}", "response": f"é{i}\nx"} for i in range(9)]


def test_a_run_without_kept_trajectories_has_no_files(tmp_path: Path) -> None:
    assert kept_files(tmp_path) == []
