"""The file of kept trajectories, also where a run goes on from an earlier step."""

from __future__ import annotations

import json
from pathlib import Path

from recipe.hdpo.kept_log import KEPT_FILE, append_kept, forget_kept_after


def test_lines_are_added_and_those_of_steps_that_are_made_again_are_taken_out(tmp_path: Path) -> None:
    folder = str(tmp_path / "rollouts")
    for step in (1, 2, 3):
        append_kept(folder, [{"step": step, "response": f"é{i}\nx"} for i in range(step)])
    file = Path(folder, KEPT_FILE)
    # What a killed run leaves: a line that it could not finish.
    file.write_bytes(file.read_bytes() + b'{"step": 2, "resp')
    assert forget_kept_after(folder, 2) == 4
    assert [json.loads(line)["step"] for line in file.read_text(encoding="utf-8").splitlines()] == [1, 2, 2]
    assert [path.name for path in Path(folder).iterdir()] == [KEPT_FILE]


def test_nothing_is_taken_out_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert forget_kept_after(str(tmp_path), 5) == 0
    assert list(tmp_path.iterdir()) == []
