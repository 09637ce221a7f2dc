"""The student's chance of each digit of a new number: found in the kept trajectories, averaged by place and step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from examples.language import digits
from recipe.hdpo.tracking.group_lines import GROUP_FOLDER
from recipe.hdpo.tracking.kept_text import KEPT_FOLDER

FIRST, SECOND, ONLY = digits.PLACES
TEXTS = ["c", "rab", *": 5*10=50\n", "snake", *": 2*0=0\n50*10\n", "cat", *": 1*4=4\n", "duck", *": 3*2"]


def test_digits_of_new_numbers_are_found_in_lines_of_animals_alone() -> None:
    assert list(digits.places(TEXTS)) == [(6, FIRST), (7, SECOND), (17, ONLY)]
    assert list(digits.places(["ant", ":", "*", "1", "4"])) == [(3, FIRST), (4, SECOND)]
    assert list(digits.places(["ant", ":", "*", "1"])) == list(digits.places(["*", "8"])) == []


def kept(chances: dict[int, float | None]) -> dict[str, Any]:
    """A line of `hdpo_kept` whose token i has id 100 + i and this chance; one without a chance is not recorded."""
    at = sorted(chances)
    pairs = [[[7, 0.5, 0.25]] + [[100 + i, 0.9, chances[i]]] * (chances[i] is not None) for i in at]
    ids = [100 + i for i in range(len(TEXTS))]
    return {"ids": ids, "texts": TEXTS, "at": at, "teacher_top": pairs, "student_top": [[] for _ in at]}


def write(folder: Path, step: int, *told: dict[str, Any] | None) -> None:
    for name in (GROUP_FOLDER, KEPT_FOLDER):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / GROUP_FOLDER / f"{step}.jsonl").write_text("")
    lines = [{"key": f"{step}_{i}", "step": step, "hdpo_tokens": tokens} for i, tokens in enumerate(told)]
    (folder / KEPT_FOLDER / f"{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_chances_are_means_over_the_tokens_of_all_runs_of_an_arm_by_quarter(tmp_path: Path) -> None:
    one, two = (tmp_path / f"report-hdpo_1-lr3e-05-seed{seed}" / "rollouts" for seed in (1, 2))
    write(one, 10, kept({6: 0.0, 7: 0.2, 17: 0.4}), None)
    write(one, 11, kept({6: 0.5}))
    write(two, 1, kept({5: 0.9, 6: 0.5, 7: None}))
    write(tmp_path / "tune-hdpo_1-lr3e-05-seed100" / "rollouts", 1, kept({6: 1.0}))
    found = digits.read_arms(tmp_path, 40)
    assert list(found) == ["hdpo_1"]
    first, second, only = (found["hdpo_1"][place] for place in digits.PLACES)
    assert first[0] == {"first": 1, "last": 10, "tokens": 2, "chance": 0.25}
    assert first[1] == {"first": 11, "last": 20, "tokens": 1, "chance": 0.5}
    assert first[3] == {"first": 31, "last": 40, "tokens": 0, "chance": None}
    assert (second[0]["tokens"], second[0]["chance"], only[0]["chance"]) == (1, 0.2, 0.4)
    assert digits.rows("a", found["hdpo_1"])[0] == ["a", FIRST, "0.250 (2)", "0.500 (1)", "", ""]


def test_the_command_writes_its_figures_and_says_where_nothing_is(tmp_path: Path, capsys: Any) -> None:
    assert digits.main([str(tmp_path)]) == 2 and "no kept trajectories" in capsys.readouterr().err
    write(tmp_path / "report-hdpo_1-lr3e-05-seed1" / "rollouts", 40, kept({17: 0.125}))
    files = ("--json", str(tmp_path / "digits.json"), "--plot", str(tmp_path / "digits.png"))
    assert digits.main([str(tmp_path), *files]) == 0
    assert "steps 31-40" in capsys.readouterr().out
    assert json.loads((tmp_path / "digits.json").read_text())["hdpo_1"][ONLY][3]["chance"] == 0.125
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")
