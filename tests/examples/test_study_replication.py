"""Two studies side by side that differ in their base model's weights, with numbers worked by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from examples.study import replication
from examples.study.plan import Run
from examples.study.record import Record
from tests.examples.test_study import BASE, TOY, page, record

pytestmark = pytest.mark.usefixtures("few_resamples")
FIRST = replace(TOY, name="first", learning_rates=(0.1,), tuning_seeds=(), seeds=(1,))
SECOND = replace(FIRST, name="second", repeats="first")


def study(base: list[int], grpo: list[int], hdpo: list[int]) -> list[Record]:
    runs = (BASE, Run("report", "grpo", 0.1, 1), Run("report", "hdpo", 0.1, 1))
    return [record(run, correct) for run, correct in zip(runs, (base, grpo, hdpo), strict=True)]


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """The first study's results, where the second looks for them."""
    records = study(base=[0, 0, 4], grpo=[0, 0, 4], hdpo=[4, 0, 4])
    for one in records:
        one.write(tmp_path / "docs" / "results" / "first" / "runs" / f"{one.run.name}.json")
    monkeypatch.setattr(replication, "ROOT", tmp_path)
    monkeypatch.setattr(replication, "read_plan", {"first": FIRST}.__getitem__)
    return records


def test_an_arm_stands_beside_itself_with_each_base_models_own_cliffs(first: list[Record]) -> None:
    records = study(base=[4, 0, 4], grpo=[4, 0, 4], hdpo=[4, 2, 4])
    text = page(SECOND, records).partition("## From two base models")[2]
    rows = re.findall(r"^\| hdpo \| (\w+) \| 1 \| \S+ \[.*?\] \| (\S+) \[", text, re.MULTILINE)
    # pass@1 over all problems, 2/4 of one problem in three and 4/4; over cliffs, one problem of one and one of two.
    assert rows[:4] == [("second", "+0.167"), ("first", "+0.333"), ("second", "+0.500"), ("first", "+0.500")]


def test_a_study_that_repeats_none_or_has_no_arm_in_common_says_nothing(first: list[Record]) -> None:
    assert "two base models" not in page(FIRST, first)
    assert "two base models" not in page(SECOND, first[:2])


def test_a_study_made_with_other_settings_is_no_repetition(first: list[Record]) -> None:
    changed = [replace(r, settings={**r.settings, "steps": 3}) for r in first]
    with pytest.raises(ValueError, match=r"second repeats first, but was made with other settings: steps"):
        page(SECOND, changed)
