"""The page's data, joined by ids from a run's files; and what may never happen to it."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recipe.hdpo.algorithm.leakage import reference_pattern
from recipe.hdpo.cliffs.__main__ import main
from recipe.hdpo.cliffs.files import Run, find_run
from recipe.hdpo.cliffs.page import LARGEST, cliff_page, data_text, headline
from recipe.hdpo.cliffs.sample import BoundedSample
from recipe.hdpo.tracking.group_lines import GROUP_FOLDER, group_lines
from recipe.hdpo.tracking.kept_text import write_kept, write_step
from tests.hdpo.cliffs.made import EVIL, FAILED, attempt, cliff, kept_line, make_run

PATTERN = reference_pattern()


class _Scripts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href")]


def data_of(page: str) -> list[dict]:
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(make_run(tmp_path / "rollouts"))


def test_every_cliff_is_joined_by_ids_with_its_rollouts_attempts_tokens_and_visits(run: Run) -> None:
    page, said = cliff_page(run, PATTERN)
    assert said == (
        "3 cliffs in 3 steps: 3 privileged rollouts, 2 kept. "
        "Of 2 problems that came again after a cliff, a later visit solved 1."
    )
    entries = {entry["uid"]: entry for entry in data_of(page)}
    assert list(entries) == ["a", "b", "e"]
    first = entries["a"]
    assert first["failed"] == [[0.0, f"4 {EVIL} of a"], [0.0, "5"]] and first["truth"] == "3"
    assert first["visits"] == [[1, "cliff", 0, 2], [2, "solved", 1, 2]]
    assert [text for kind, text in first["prompt"] if kind == "shown"] == ["1+2=3"]
    kept, failed = first["attempts"]
    assert "".join(kept["tokens"]) == f"1+2=3 as the reference says {EVIL}"
    assert kept["d"][:3] == [0.0, 0.01, 0.02] and kept["at"] is None
    assert [kept["names"][i] for i in kept["tt"][0][::3]] == ["1", "z"] and kept["tt"][0][1] == pytest.approx(0.905)
    assert [kept["names"][i] for i in kept["st"][0][::3]] == ["z"]
    assert (failed["kept"], failed["why"], failed["text"]) == (False, "failed", FAILED)
    assert entries["b"]["skipped"] == {"too_long": 1} and entries["b"]["attempts"] == []


def test_the_longest_shared_run_and_what_speaks_of_a_reference_are_marked_in_the_kept_text(run: Run) -> None:
    kept = data_of(cliff_page(run, PATTERN)[0])[0]["attempts"][0]
    text = "".join(kept["tokens"])
    assert text[slice(*kept["run"])] == "1+2=3"
    assert [text[slice(*span)] for span in kept["speaks"]] == ["the reference"]


def test_a_reissued_cliff_is_one_entry_with_the_failed_rollouts_of_the_group_that_failed(run: Run) -> None:
    entry = data_of(cliff_page(run, PATTERN)[0])[-1]
    assert (entry["uid"], entry["cliff_uid"]) == ("e", "d")
    assert entry["step"] == 3 and entry["failed"][0][1] == f"4 {EVIL} of d"
    # Nothing was recorded of its tokens: its text is there.
    assert entry["attempts"][0]["text"] == "1+2=3" and "tokens" not in entry["attempts"][0]


def test_what_a_run_wrote_opens_no_element_and_nothing_is_loaded(run: Run) -> None:
    page, _ = cliff_page(run, PATTERN)
    parser = _Scripts()
    parser.feed(page)
    assert parser.tags.count("script") == 2 and "img" not in parser.tags and parser.sources == []
    assert not re.search(r"https?://|@import|url\(|innerHTML|<!--", page)
    # And the texts arrive as they were.
    assert data_of(page)[0]["question"] == f"user {EVIL} 1+2=?"


def test_data_for_a_script_holds_no_character_that_could_end_it() -> None:
    text = data_text({"a": "</script><!-- \u2028&"})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"a": "</script><!-- \u2028&"}


def test_of_more_than_fits_a_part_by_chance_is_shown_and_said(run: Run) -> None:
    whole = cliff_page(run, PATTERN)[0]
    sizes = [len(data_text(entry).encode()) for entry in data_of(whole)]
    page, said = cliff_page(run, PATTERN, budget=sum(sizes) - 1)
    shown = len(data_of(page))
    assert 0 < shown < 3 and f"<b>{shown} of 3</b> are on this page" in page and said.startswith("3 cliffs")
    assert "are on this page" not in whole


def test_of_a_large_cliff_fewer_tokens_are_shown_so_that_others_have_room(tmp_path: Path) -> None:
    line = kept_line("", "".join(chr(0x4E00 + n) for n in range(2000)))
    write_step(
        str(tmp_path),
        GROUP_FOLDER,
        1,
        group_lines([cliff("a", "p", [attempt(f"a_{n}_0", kept=True) for n in range(9)])]),
    )
    write_kept(str(tmp_path), 1, [line | {"key": f"a_{n}_0"} for n in range(9)])
    [entry] = data_of(cliff_page(Run(tmp_path), PATTERN)[0])
    assert LARGEST / 2 < len(data_text(entry).encode()) <= LARGEST
    for each in entry["attempts"]:
        count = len(each["tokens"])
        assert 200 < count < 2000 and each["beyond"] == 2000 - count and len(each["d"]) == len(each["tt"]) == count
        # And no names but those of their tops.
        assert sorted(each["names"]) == sorted([*each["tokens"], "z"])


def test_what_is_larger_than_the_budget_leaves_the_rest_of_a_sample_alone() -> None:
    for place in range(40):
        sample = BoundedSample(500)
        for n in range(40):
            sample.add(f"u{n}", "x" * (501 if n == place else 10))
        assert sample.seen == 40 and len(sample.texts()) == 39


@pytest.mark.parametrize(
    "counts, said",
    [
        ({}, "No cliff in 1 step."),
        ({"cliffs": 1, "attempts": 1}, "1 cliff in 1 step: 1 privileged rollout, 0 kept."),
    ],
)
def test_one_of_a_thing_is_written_as_one(counts: dict[str, int], said: str) -> None:
    assert headline(Counter(counts), 1, 0, 0) == said
    assert headline(Counter(cliffs=1), 2, 1, 0).endswith(
        "Of 1 problem that came again after a cliff, a later visit solved 0."
    )


def test_a_sample_is_the_same_in_any_order_and_never_above_its_budget() -> None:
    texts = {f"u{i}": "x" * (10 + i % 7) for i in range(200)}
    found = []
    for order in (list(texts), list(texts)[::-1]):
        sample = BoundedSample(500)
        for uid in order:
            sample.add(uid, f"{uid}:{texts[uid]}")
            assert sample.used <= 500
        assert sample.seen == 200 and sum(len(text) for text in sample.texts()) == sample.used > 450
        found.append(sorted(sample.texts()))
    assert found[0] == found[1]


def test_the_command_writes_the_page_beside_the_runs_files_or_where_it_is_told(tmp_path: Path, capsys) -> None:
    make_run(tmp_path / "out" / "rollouts")
    assert main([str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/rollouts/cliffs.html").stat().st_size < 5_000_000
    assert main([str(tmp_path / "out"), "--out", str(tmp_path / "new/page.html")]) == 0
    assert (tmp_path / "new/page.html").exists() and "3 cliffs in 3 steps" in capsys.readouterr().out


def test_a_wrong_run_is_one_error_that_says_how_to_mend_it(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    for folder, said in (("nowhere", "is no folder"), ("empty", "trainer.rollout_data_dir=DIR")):
        assert main([str(tmp_path / folder)]) == 2
        assert said in capsys.readouterr().err
    for arm in ("a", "b"):
        make_run(tmp_path / "two" / arm)
    with pytest.raises(ValueError, match=r"several runs; name one of .*two/a, .*two/b"):
        find_run(tmp_path / "two")
    file = tmp_path / "two/a/2.jsonl"
    file.write_text(file.read_text() + '{"cut')
    assert main([str(tmp_path / "two/a")]) == 2
    assert "2.jsonl, line 5: no JSON" in capsys.readouterr().err


def test_a_run_without_verls_rollouts_shows_the_rest_and_says_so(run: Run) -> None:
    (run.folder / "1.jsonl").unlink()
    page, _ = cliff_page(Run(run.folder), PATTERN)
    assert "not there for 1 of 3 steps" in page
    entry = data_of(page)[0]
    assert entry["failed"] == [] and entry["question"] == "user 1+2=?" and entry["attempts"][0]["kept"]
