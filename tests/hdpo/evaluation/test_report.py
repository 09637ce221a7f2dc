"""The HTML report: self-contained, escaped, never over an existing file."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recipe.hdpo.evaluation.comparison import compare, load_arms, path_from
from recipe.hdpo.evaluation.leaks import DECIDES
from recipe.hdpo.evaluation.report import html_report, write_report
from recipe.hdpo.evaluation.verdict import outcome, verdicts
from tests.hdpo.evaluation.made_results import write_results

BASE = {"p1": [0, 1, 0], "p2": [0, 0, 0], "p3": [1, 1, 1]}
ARM = {"p1": [0, 1, 1], "p2": [0, 1, 0], "p3": [1, 1, 1]}
VOID = {"meta"}
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'


class _Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for key, value in attrs if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def html(tmp_path):
    folders = [
        ("base", [write_results(tmp_path / "b", BASE, model_sha256="abc123" * 10 + "ffff")]),
        ("<arm>", [write_results(tmp_path / "a", ARM)]),
    ]
    comparison = compare(load_arms(folders))
    pages = {"Cliffs <all>": tmp_path / "report" / "cliffs.html"}
    logs = {"base": [tmp_path / "logs" / "<b>.jsonl"]}
    return html_report("Sums & <more>", comparison, {"pass@k": SVG}, logs, tmp_path / "report", pages)


def test_every_tag_is_closed_and_nothing_is_loaded(html):
    parser = _Balance()
    parser.feed(html)
    assert parser.open == []
    assert parser.sources == ["cliffs.html"]  # the link to another page
    assert SVG in html
    assert not re.search(r"https?://|<script|@import|url\(", html.replace(SVG, ""))


def test_the_page_fits_a_phone_and_names_files_from_where_it_lies(html, tmp_path):
    assert '<meta name="viewport" content="width=device-width' in html
    assert "../logs/&lt;b&gt;.jsonl" in html and ">../a<" in html and str(tmp_path) not in html
    assert path_from(Path("/one/report"), "/two/model") == "/two/model"


def test_names_from_outside_are_escaped(html):
    assert "<arm>" not in html
    assert "&lt;arm&gt;" in html
    assert "<b>.jsonl" not in html
    assert "Sums &amp; &lt;more&gt;" in html


def test_the_tables_hold_means_differences_and_settings(html):
    assert "0.500 [" in html  # pass@1 of the baseline
    assert "+0.333 [" in html  # the difference: 0.5 + 0.5 + 0 over 3 problems
    assert "temperature = 1.0" in html
    assert "model_sha256 = abc123abc123," in html or "model_sha256 = abc123abc123<" in html


@pytest.mark.parametrize(("won", "shaded"), [(3, ""), (5, ""), (12, "better")])
def test_a_difference_is_shaded_only_where_the_interval_and_the_test_agree(tmp_path, won, shaded):
    problems = [f"p{i}" for i in range(40)]
    base = write_results(tmp_path / "b", {p: [0, 0, 0] for p in problems})
    arm = write_results(tmp_path / "a", {p: [int(i < won), 0, 0] for i, p in enumerate(problems)})
    text = html_report("t", compare(load_arms([("b", [base]), ("a", [arm])])), {}, {})
    row = re.search(r'<tr class="(\w*)"><td class="">a - b</td><td class="">greedy</td>', text)
    assert row and row.group(1) == shaded
    worse = html_report("t", compare(load_arms([("a", [arm]), ("b", [base])])), {}, {})
    assert ('<tr class="worse"><td class="">b - a</td><td class="">greedy</td>' in worse) == bool(shaded)


def test_signs_of_copying_are_shown_where_results_hold_them(tmp_path):
    one, two, three = (write_results(tmp_path / name, BASE, model_sha256=name) for name in "abc")
    for folder, share in ((one, 0.25), (two, 0.75)):
        found = {"rollouts": 4, "problems": 2, "speaks": {"estimate": share, "low": 0, "high": 1}}
        (folder / "summary.json").write_text(json.dumps({"leakage": found}))
    html = html_report("t", compare(load_arms([("base", [three]), ("arm", [one, two])])), {}, {})
    assert '<td class="">speak of a reference</td><td class="">?</td><td class="">0.500</td>' in html
    assert "Solved, or copied?" not in html_report("t", compare(load_arms([("x", [three])])), {}, {})


def test_signs_that_were_measured_in_different_ways_are_not_compared(tmp_path):
    one, two = (write_results(tmp_path / name, BASE, model_sha256=name) for name in "ab")
    for folder, check in ((one, "arithmetic"), (two, "mine.py:check")):
        found = {"rollouts": 4, "problems": 2}
        found |= {name: {"estimate": 0.25, "low": 0, "high": 1} for name in ("speaks", "valid_steps")}
        found[DECIDES] = {"step_check": check, "phrases_sha256": None}
        (folder / "summary.json").write_text(json.dumps({"leakage": found}))
    html = html_report("t", compare(load_arms([("base", [one]), ("arm", [two])])), {}, {})
    assert '<td class="">speak of a reference</td><td class="">0.250</td><td class="">0.250</td>' in html
    said = "measured with step_check = arithmetic and mine.py:check: evaluate again with one of them"
    assert f'<td class="">steps that are valid</td><td class="">{said}</td><td class=""></td>' in html


@pytest.mark.parametrize("metric", ["mean_tokens", "truncated"])
def test_longer_responses_are_no_gain(metric):
    difference = {"metric": metric, "estimate": 3.0, "low": 2.0, "high": 4.0, "p": 0.001}
    assert outcome(difference) == "differs" and outcome(difference | {"p": 0.2}) == ""


def test_the_verdict_names_what_is_clearly_higher_and_lower_and_what_is_not_clear(tmp_path):
    problems = [f"p{i}" for i in range(40)]
    base = write_results(tmp_path / "b", {p: [int(i < 20), 0, 0] for i, p in enumerate(problems)})
    arm = write_results(tmp_path / "a", {p: [0, int(i < 12), int(i < 1)] for i, p in enumerate(problems)})
    comparison = compare(load_arms([("base model", [base]), ("HDPO", [arm])]))
    [(name, said)] = verdicts(comparison)
    assert (name, said) == (
        "HDPO",
        "against base model: higher pass@1 (+0.163) and pass@2 (+0.300); lower greedy (-0.500). One training run: "
        "another seed may come out differently.",
    )
    same = compare(
        load_arms([("x", [base]), ("y", [write_results(tmp_path / "c", {key: [1, 0, 0] for key in problems})])])
    )
    assert "no clear difference in pass@1 and pass@2" in verdicts(same)[0][1]
    assert said in html_report("t", comparison, {}, {}).replace("&#39;", "'")


def test_an_existing_file_is_kept_unless_forced_and_then_all_are_replaced(tmp_path):
    old, new = tmp_path / "r.html", tmp_path / "r.png"
    old.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"Already there: .*r\.html.*--force"):
        write_report({old: b"1", new: b"2"})
    assert old.read_bytes() == b"old"
    assert not new.exists()
    write_report({old: b"1", new: b"2"}, force=True)
    assert (old.read_bytes(), new.read_bytes()) == (b"1", b"2")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["r.html", "r.png"]


def test_a_missing_folder_is_made_and_a_file_in_its_place_is_an_error(tmp_path):
    write_report({tmp_path / "new" / "folder" / "r.html": b"1"})
    assert (tmp_path / "new" / "folder" / "r.html").read_bytes() == b"1"
    with pytest.raises(ValueError, match=r"r\.html is a file, not a folder"):
        write_report({tmp_path / "new" / "folder" / "r.html" / "deeper" / "r.html": b"1"})
