"""The HTML report: self-contained, escaped, never over an existing file."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from recipe.hdpo.evaluation.comparison import compare, load_arms
from recipe.hdpo.evaluation.report import html_report, write_report
from tests.hdpo.evaluation.made_results import write_results

BASE = {"p1": [0, 1, 0], "p2": [0, 0, 0], "p3": [1, 1, 1]}
ARM = {"p1": [0, 1, 1], "p2": [0, 1, 0], "p3": [1, 1, 1]}
VOID = {"meta", "img"}


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
    return html_report("Sums & <more>", comparison, {"pass@k": b"png bytes"}, {"base": ["logs/<b>.jsonl"]})


def test_every_tag_is_closed_and_every_source_is_inside_the_file(html):
    parser = _Balance()
    parser.feed(html)
    assert parser.open == []
    assert parser.sources == ["data:image/png;base64," + base64.b64encode(b"png bytes").decode()]
    assert not re.search(r"https?://|<script|@import|url\(", html)


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


@pytest.mark.parametrize(("won", "shaded"), [(3, False), (5, False), (12, True)])
def test_a_difference_is_shaded_only_where_the_interval_and_the_test_agree(tmp_path, won, shaded):
    problems = [f"p{i}" for i in range(40)]
    base = write_results(tmp_path / "b", {p: [0, 0, 0] for p in problems})
    arm = write_results(tmp_path / "a", {p: [int(i < won), 0, 0] for i, p in enumerate(problems)})
    text = html_report("t", compare(load_arms([("b", [base]), ("a", [arm])])), {}, {})
    row = re.search(r'<tr class="(\w*)"><td class="">a - b</td><td class="">greedy</td>', text)
    assert row and (row.group(1) == "clear") == shaded


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
