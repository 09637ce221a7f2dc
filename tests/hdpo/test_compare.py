"""The compare command: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json

import pytest

from recipe.hdpo.compare import main
from recipe.hdpo.evaluation.records import SAMPLES
from tests.hdpo.evaluation.made_results import write_results

BASE = {"p1": [0, 1, 0], "p2": [0, 0, 0], "p3": [1, 1, 1], "p4": [0, 0, 0]}
ARM = {"p1": [1, 1, 1], "p2": [0, 1, 0], "p3": [0, 1, 0], "p4": [0, 0, 0]}


@pytest.fixture
def folders(tmp_path):
    return write_results(tmp_path / "base", BASE), write_results(tmp_path / "arm", ARM, model_sha256="a")


def _log(path, text='{"step": 1, "data": {"hdpo/cliff_rate": 0.5}}\n{"step": 2, "data": {"hdpo/cliff_rate": 0.25}}\n'):
    path.write_text(text)
    return path


def test_one_report_with_figures_and_numbers_is_written_and_the_table_printed(tmp_path, folders, capsys):
    log = _log(tmp_path / "m.jsonl")
    out = tmp_path / "report.html"
    assert main([f"base={folders[0]}", f"arm={folders[1]}", "--out", str(out), "--train-metrics", f"arm={log}"]) == 0
    written = {file.name for file in tmp_path.iterdir() if file.name.startswith("report")}
    assert written == {
        "report.html",
        "report.json",
        "report_passk.svg",
        "report_difficulty.svg",
        "report_training.svg",
    }
    assert out.read_text().count("<svg") == 3
    numbers = json.loads((tmp_path / "report.json").read_text())
    difference = next(d for d in numbers["differences"] if d["metric"] == "pass@1")
    assert (difference["estimate"], difference["won"], difference["lost"]) == (0.125, 2, 1)
    printed = capsys.readouterr().out
    assert "arm - base" in printed
    assert "+0.125 [" in printed
    assert "arm against base: no clear difference in greedy" in printed
    assert numbers["verdicts"]["arm"].startswith("against base: no clear difference")
    assert numbers["arms"]["arm"]["folders"] == ["arm"]
    assert str(out) in printed


def test_other_pages_are_linked_from_the_top(tmp_path, folders):
    (tmp_path / "cliffs.html").write_text("")
    arguments = [f"base={folders[0]}", f"arm={folders[1]}", "--out", str(tmp_path / "r.html")]
    assert main([*arguments, "--pages", f"The cliffs={tmp_path / 'cliffs.html'}"]) == 0
    assert '<a href="cliffs.html">The cliffs</a>' in (tmp_path / "r.html").read_text()


def test_without_training_logs_there_is_no_training_figure(tmp_path, folders):
    assert main([f"base={folders[0]}", f"arm={folders[1]}", "--out", str(tmp_path / "r.html")]) == 0
    assert not (tmp_path / "r_training.svg").exists()


def test_several_folders_of_an_arm_are_its_runs(tmp_path, folders, capsys):
    second = write_results(tmp_path / "arm2", BASE, model_sha256="b")
    main([f"base={folders[0]}", f"arm={folders[1]},{second}", "--out", str(tmp_path / "r.html")])
    assert "arm (2 run(s))" in capsys.readouterr().out


def test_an_existing_report_is_kept_unless_forced(tmp_path, folders, capsys):
    arguments = [f"base={folders[0]}", f"arm={folders[1]}", "--out", str(tmp_path / "r.html")]
    (tmp_path / "r_passk.svg").write_text("mine")
    assert main(arguments) == 2
    assert "Already there" in capsys.readouterr().err
    assert (tmp_path / "r_passk.svg").read_text() == "mine"
    assert not (tmp_path / "r.html").exists()
    assert main(["base=/nowhere", *arguments[1:]]) == 2  # refused before anything is read
    assert "Already there" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    assert (tmp_path / "r_passk.svg").read_text().startswith("<svg")


def test_a_second_run_gives_the_same_bytes(tmp_path, folders):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        main([f"base={folders[0]}", f"arm={folders[1]}", "--out", str(tmp_path / name / "r.html")])
    for file in ("r.html", "r.json", "r_passk.svg"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(
    ("arms", "more", "message"),
    [
        (["base"], [], "not of the form ARM=DIR"),
        (["base={base}", "base={arm}"], [], "base is given twice"),
        (["base={base}", "arm={arm},"], [], "not of the form"),
        (["base={base}", "arm=/nowhere"], [], "not a result folder"),
        (["base={base}", "arm={arm}"], ["--train-metrics", "base=/nowhere.jsonl"], "no such file"),
        (["base={base}", "arm={arm}"], ["--k", "3"], "k=3 with n=2"),
        (["base={base}", "arm={arm}"], ["--out", "{dir}/report.txt"], "must end in .html"),
        (["base={base}", "arm={arm}"], ["--out", "{base}/meta.json/r.html"], "is a file, not a folder"),
        (["base={base}", "arm={arm}"], ["--force", "--out", "{base}/summary.html"], "the results themselves"),
        (["base={base}", "arm={arm}"], ["--force", "--out", "{arm}/meta.html"], "the results themselves"),
        (["base={base}", "arm={arm}"], ["--pages", "c=a.html,b.html"], "--pages c: one file a name, not 2"),
        (
            ["base={base}", "arm={arm}"],
            ["--pages", "cliffs=/nowhere.html"],
            "--pages cliffs=/nowhere.html: there is no such",
        ),
        (["base={base}"], [], "base is the only arm, so there is nothing to compare"),
        (["base={base},{arm}"], [], "base is the only arm, so there is nothing to compare"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, folders, capsys, arms, more, message):
    before = sorted(tmp_path.rglob("*"))
    places = {"base": folders[0], "arm": folders[1], "dir": tmp_path}
    arguments = [*arms, "--out", "{dir}/r.html", *more]
    assert main([text.format(**places) for text in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "no samples"), (b'{"problem_id": "p1", "da', "line 1: cut off or not JSON")]
)
def test_empty_and_cut_results_are_refused(tmp_path, folders, capsys, content, message):
    (folders[1] / SAMPLES).write_bytes(content)
    assert main([f"base={folders[0]}", f"arm={folders[1]}", "--out", str(tmp_path / "r.html")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_training_logs_of_an_arm_that_is_not_compared_are_refused(tmp_path, folders, capsys):
    log = _log(tmp_path / "m.jsonl")
    arguments = [f"base={folders[0]}", f"arm={folders[1]}", "--out", str(tmp_path / "r.html")]
    assert main([*arguments, "--train-metrics", f"other={log}"]) == 2
    assert "--train-metrics names other; the arms are base, arm." in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()
