"""What models write for the legs of an animal: joined to the problem's animals, counted by group, read by arm."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from data_preprocess.word_families import FAMILIES
from data_preprocess.word_problems import problems
from examples.language import legs
from recipe.hdpo.evaluation.records import GREEDY, SUMMARY
from recipe.hdpo.evaluation.writer import ResultWriter
from tests.hdpo.evaluation.made_results import meta, sample

ASKED = "Now, how many legs are there in total if you have 2 crabs, 3 snakes, 1 cat?"
RIGHT = "crab: 2*10=20\nsnake: 3*0=0\n20+0=20\ncat: 1*4=4\n20+4=24\n#### 24"


@pytest.mark.parametrize("family", ["leg_counting", "new_animals"])
def test_the_steps_of_every_problem_are_read_as_the_true_legs_of_its_animals(family: str) -> None:
    for size in FAMILIES[family].sizes:
        for problem in itertools.islice(problems(family, size, 0), 50):
            found = legs.written(problem.text, problem.solution())
            assert found == [(animal, number) for animal, _, number in problem.about]


def test_a_misspelled_name_is_its_animals_and_lines_that_do_not_fit_are_left_out() -> None:
    for name in ("snack", "Snak", "sea snake"):
        assert legs.written(ASKED, RIGHT.replace("snake", name).replace("3*0", "3*9"))[1] == ("snake", 9)
    for wrong in ("2*10", "3*0"):  # another number of animals; an animal left out
        assert legs.written(ASKED, RIGHT.replace(wrong, "5*1")) is None
    assert legs.written(ASKED, RIGHT.replace("snake: 3*0=0\n", "")) is None
    assert legs.written(ASKED, "#### 24") is None


def test_lines_are_counted_by_group_and_greedy_responses_and_other_problems_are_not() -> None:
    prompt = [{"role": "user", "content": ASKED}]
    false = RIGHT.replace("1*4", "1*10").replace("2*10", "2*6")
    texts = {GREEDY: RIGHT, 0: RIGHT, 1: false, 2: "none", 3: "crab: 2*10=20\n#### 24"}
    made = [sample("p1", i, i != 2, prompt=prompt, response=text) for i, text in texts.items()]
    found = legs.count([*made, sample("p2", 0, True)])
    assert found["responses"] == {"all": 4, "right": 3, "unread": 2, "shorter": 2, "shorter_right": 1}
    assert found["lines"] == {
        legs.KNOWN: {"lines": 2, "true": 1, "of_a_new_animal": 1},
        legs.NONE: {"lines": 2, "true": 2, "of_a_new_animal": 2},
        legs.SOME: {"lines": 2, "true": 1, "of_a_new_animal": 1},
    }
    assert found["animals"] == {"cat": {4: 1, 10: 1}, "crab": {10: 1, 6: 1}, "snake": {0: 2}}
    assert legs.cells("hdpo_1", {"runs": 3} | found) == ["hdpo_1", "3", "0.50", "0.50", "1.00", "0.50", "0.50", "0.33"]


def test_the_runs_of_an_arm_are_counted_together_and_unfinished_ones_wait(tmp_path: Path, capsys) -> None:
    assert legs.main([str(tmp_path)]) == 2 and "no evaluated run" in capsys.readouterr().err
    names = ("report-base", "report-hdpo_0.1-lr3e-05-seed1", "report-hdpo_0.1-lr3e-05-seed2", "tune-grpo-lr3e-05-seed3")
    for name in names:
        prompt = [{"role": "user", "content": ASKED}]
        with ResultWriter(tmp_path / name / "eval", meta(1, n=1)) as writer:
            writer.write(sample("p1", i, True, prompt=prompt, response=RIGHT) for i in (GREEDY, 0))
        (tmp_path / name / "eval" / SUMMARY).write_text("{}")
    (tmp_path / "report-grpo-lr3e-05-seed1/eval").mkdir(parents=True)
    assert legs.main([str(tmp_path), "--json", str(tmp_path / "legs.json")]) == 0
    found = json.loads((tmp_path / "legs.json").read_text())
    assert {arm: (own["runs"], own["responses"]["all"]) for arm, own in found.items()} == {
        "base": (1, 1),
        "hdpo_0.1": (2, 2),
    }
    assert "lines not read of: base 0 of 1, hdpo_0.1 0 of 2" in capsys.readouterr().out
