"""Result folders: what is written is read back, nothing is overwritten, a cut file is mended or refused."""

from __future__ import annotations

import json

import pytest

from recipe.hdpo.evaluation.records import META, SAMPLES, read_meta, read_results
from recipe.hdpo.evaluation.writer import ResultWriter
from tests.hdpo.evaluation.made_results import meta, sample, write_results

SCORES = {"p1": [1, 1, 0, 0, 0], "p2": [0, 0, 0, 0, 1]}


def _lines(folder):
    return (folder / SAMPLES).read_bytes().splitlines(keepends=True)


def test_what_is_written_is_read_back(tmp_path):
    odd = sample("p1", -1, True, response='line\n"quoted" é 数 \\frac{1}{2}\r\x00', answer=None, score=0.25)
    with ResultWriter(tmp_path / "r", meta(1, n=1)) as writer:
        writer.write([odd])
        writer.write([sample("p1", 0, False)])
    results = read_results(tmp_path / "r")
    assert results.samples == [odd, sample("p1", 0, False)]
    assert results.meta == meta(1, n=1)


def test_every_line_has_exactly_the_documented_fields(tmp_path):
    line = json.loads(_lines(write_results(tmp_path / "r", SCORES))[0])
    assert list(line) == [
        "problem_id",
        "data_source",
        "difficulty",
        "sample",
        "prompt",
        "response",
        "answer",
        "score",
        "tokens",
        "truncated",
        "unscored",
    ]


def test_results_from_before_ungraded_samples_were_marked_are_read(tmp_path):
    write_results(tmp_path / "old", {"p1": [1, 0, 1]})
    samples = tmp_path / "old" / "samples.jsonl"
    samples.write_text(samples.read_text().replace(', "unscored": ""', ""))
    assert "unscored" not in samples.read_text()
    assert {s.unscored for s in read_results(tmp_path / "old").samples} == {""}


def test_a_second_writer_knows_what_is_done_and_adds_the_rest(tmp_path):
    with ResultWriter(tmp_path / "r", meta(1, n=2)) as writer:
        writer.write([sample("p1", -1, True), sample("p1", 1, True)])
    with ResultWriter(tmp_path / "r", meta(1, n=2)) as writer:
        assert writer.done == {("p1", -1), ("p1", 1)}
        assert writer.cut_file is None
        writer.write([sample("p1", 0, False)])
    assert len(read_results(tmp_path / "r").samples) == 3


@pytest.mark.parametrize("cut", [1, 30])
def test_a_cut_last_line_is_an_error_in_reading_and_set_aside_in_writing(tmp_path, cut):
    folder = write_results(tmp_path / "r", SCORES)
    whole = (folder / SAMPLES).read_bytes()
    last = _lines(folder)[-1]
    (folder / SAMPLES).write_bytes(whole[: -cut - 1])
    with pytest.raises(ValueError, match=r"line 10: cut off or not JSON.*recipe.hdpo.evaluate --again"):
        read_results(folder)
    with ResultWriter(folder, meta(2)) as writer:
        assert writer.cut_file.read_bytes() == last[: -cut - 1]
        assert len(writer.done) == 9
        writer.write([sample("p2", 3, True)])
    assert (folder / SAMPLES).read_bytes() == whole


def test_a_second_cut_does_not_replace_the_first_cut_file(tmp_path):
    folder = write_results(tmp_path / "r", SCORES)
    for expected in ("samples.jsonl.cut-0", "samples.jsonl.cut-1"):
        (folder / SAMPLES).write_bytes((folder / SAMPLES).read_bytes()[:-5])
        with ResultWriter(folder, meta(2)) as writer:
            assert writer.cut_file.name == expected


@pytest.mark.parametrize(
    ("key", "value"), [("temperature", 0.6), ("model_sha256", "other"), ("n", 8), ("data_sha256", ["new"])]
)
def test_other_settings_in_the_same_folder_are_refused_and_nothing_changes(tmp_path, key, value):
    folder = write_results(tmp_path / "r", SCORES)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ValueError, match=f"other settings.*{key}: .* there, .* now.*Nothing was changed"):
        ResultWriter(folder, meta(2, **{key: value}))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_folder_with_other_files_and_a_file_in_its_place_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"not a result folder.*notes\.txt"):
        ResultWriter(tmp_path, meta(1))
    with pytest.raises(ValueError, match="is a file"):
        ResultWriter(tmp_path / "notes.txt", meta(1))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_two_writers_at_once_are_refused(tmp_path):
    with (
        ResultWriter(tmp_path / "r", meta(1)),
        pytest.raises(ValueError, match="another evaluation is writing"),
    ):
        ResultWriter(tmp_path / "r", meta(1))


def test_missing_samples_are_counted(tmp_path):
    folder = write_results(tmp_path / "r", SCORES)
    (folder / SAMPLES).write_bytes(b"".join(_lines(folder)[:-3]))
    with pytest.raises(ValueError, match="3 of 10 samples are missing"):
        read_results(folder)


def test_a_problem_without_any_sample_counts_as_missing(tmp_path):
    folder = write_results(tmp_path / "r", SCORES)
    (folder / SAMPLES).write_bytes(b"".join(_lines(folder)[:5]))
    with pytest.raises(ValueError, match="5 of 10 samples are missing"):
        read_results(folder)


def test_repeated_and_strange_samples_are_refused(tmp_path):
    folder = write_results(tmp_path / "r", SCORES)
    lines = _lines(folder)
    (folder / SAMPLES).write_bytes(b"".join([*lines, lines[0]]))
    with pytest.raises(ValueError, match=r"1 sample\(s\) are there twice"):
        read_results(folder)
    strange = lines[0].replace(b'"sample": -1', b'"sample": 17')
    (folder / SAMPLES).write_bytes(b"".join([*lines, strange]))
    with pytest.raises(ValueError, match=r"1 sample\(s\) do not belong, such as sample 17 of problem p1; .* -1 to 3"):
        read_results(folder)


def test_what_a_reader_advises_is_what_a_writer_then_takes(tmp_path):
    """A cut last line: run again. A broken line before it: a writer refuses it, so remove it first."""
    folder = write_results(tmp_path / "r", SCORES)
    lines = _lines(folder)
    (folder / SAMPLES).write_bytes(b"".join(lines)[:-9])
    with pytest.raises(ValueError, match=r"line 10: cut off or not JSON .* Run the evaluation again"):
        read_results(folder)
    with ResultWriter(folder, read_meta(folder)) as writer:
        assert len(writer.done) == 9
    (folder / SAMPLES).write_bytes(b"".join([lines[0], b"{broken\n", *lines[2:]]))
    with pytest.raises(ValueError, match=r"line 2: .* Remove that line, and run the evaluation again"):
        read_results(folder)
    with pytest.raises(ValueError, match=r"line 2: .* Remove that line"):
        ResultWriter(folder, read_meta(folder))
    (folder / SAMPLES).write_bytes(b"".join([lines[0], *lines[2:]]))
    with ResultWriter(folder, read_meta(folder)) as writer:
        assert len(writer.done) == 9


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"score": 1.0', b'"score": "high"', "bad value of score"),
        (b'"score": 1.0', b'"score": NaN', "bad value of score"),
        (b'"score": 1.0', b'"score": 1' + b"0" * 400, "bad value of score"),
        (b'"answer": ', b'"answer": ' + b"[" * 100_000, "cut off or not JSON"),
        (b'"truncated": false', b'"truncated": 0', "bad value of truncated"),
        (b'"tokens": 9', b'"tokens": true', "bad value of tokens"),
        (b'"score"', b'"points"', "the fields are not problem_id"),
        (b"{", b"[{", "not JSON"),
    ],
)
def test_a_line_with_wrong_content_is_refused_by_its_number(tmp_path, old, new, message):
    folder = write_results(tmp_path / "r", SCORES)
    lines = _lines(folder)
    assert old in lines[0]
    (folder / SAMPLES).write_bytes(b"".join([lines[0].replace(old, new, 1), *lines[1:]]))
    with pytest.raises(ValueError, match=f"line 1: .*{message}"):
        read_results(folder)


def test_no_samples_no_folder_and_a_broken_header_are_refused(tmp_path):
    folder = write_results(tmp_path / "r", SCORES)
    (folder / SAMPLES).write_bytes(b"")
    with pytest.raises(ValueError, match="no samples"):
        read_results(folder)
    with pytest.raises(ValueError, match=f"not a result folder, {META} is missing"):
        read_results(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"not a result folder, {META} is missing"):
        read_results(folder / SAMPLES)
    whole = json.loads((folder / META).read_text())
    changes: list[dict] = [{"settings": {}}, {"settings": whole["settings"] | {"n": "4"}}, {"about": None}]
    for broken in ("{", "[]", '{"format": "other"}', *(json.dumps(whole | change) for change in changes)):
        (folder / META).write_text(broken)
        with pytest.raises(ValueError, match="cannot be read"):
            read_results(folder)


@pytest.mark.parametrize("other", [{"p1": "q1"}, {"p1": "q1", "p2": "q2"}], ids=["one", "all"])
def test_samples_of_another_data_set_are_refused(tmp_path, other):
    folder = write_results(tmp_path / "r", SCORES)
    strange = write_results(tmp_path / "s", {other.get(problem, problem): row for problem, row in SCORES.items()})
    (folder / SAMPLES).write_bytes((strange / SAMPLES).read_bytes())
    with pytest.raises(ValueError, match="samples of other problems than the 2 "):
        read_results(folder)


def test_samples_of_one_more_problem_are_refused_as_that(tmp_path):
    folder = write_results(tmp_path / "r", SCORES)
    more = write_results(tmp_path / "s", SCORES | {"p3": [1, 1, 1, 1, 1]})
    (folder / SAMPLES).write_bytes((more / SAMPLES).read_bytes())
    with pytest.raises(ValueError, match="samples of other problems"):
        read_results(folder)
