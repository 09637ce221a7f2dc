"""Reading problems from parquet."""

from __future__ import annotations

import hashlib
from collections import Counter

import pandas as pd
import pytest

from recipe.hdpo.evaluation.problems import file_sha256, problem_id, read_problems


def _row(i, **changes):
    row = {
        "data_source": "made",
        "prompt": [{"role": "user", "content": f"{i}+1=?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(i + 1)},
        "extra_info": {"index": i, "difficulty": str(i % 5)},
    }
    return {**row, **changes}


def _parquet(path, rows):
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_every_row_becomes_a_problem_in_file_order(tmp_path):
    files = [
        _parquet(tmp_path / "a.parquet", [_row(i) for i in range(3)]),
        _parquet(tmp_path / "b.parquet", [_row(7)]),
    ]
    found = read_problems(files).problems
    assert [p.ground_truth for p in found] == ["1", "2", "3", "8"]
    assert found[1].prompt == [{"role": "user", "content": "1+1=?"}]
    assert (found[1].data_source, found[1].difficulty, found[1].extra_info["index"]) == ("made", "1", 1)


def test_the_id_is_the_hash_of_source_prompt_and_truth_and_of_nothing_else():
    prompt = [{"role": "user", "content": "1+1=?"}]
    expected = hashlib.sha256(b'["made", [["user", "1+1=?"]], "2"]').hexdigest()[:16]
    assert problem_id("made", prompt, "2") == expected
    assert problem_id("made", [{"content": "1+1=?", "role": "user", "name": None}], "2") == expected
    others = {
        problem_id("other", prompt, "2"),
        problem_id("made", [{"role": "user", "content": "1+1=? "}], "2"),
        problem_id("made", [{"role": "system", "content": "1+1=?"}], "2"),
        problem_id("made", prompt, "3"),
    }
    assert len(others - {expected}) == 4


def test_a_repeated_problem_counts_once_and_is_named(tmp_path):
    first, again = _row(0), _row(0, extra_info={"index": 9, "difficulty": "9"})
    found = read_problems([_parquet(tmp_path / "a.parquet", [first, _row(1), again])])
    assert len(found.problems) == 2
    assert found.duplicates == ["a.parquet:2"]


def test_a_row_without_difficulty_is_unspecified(tmp_path):
    found = read_problems([_parquet(tmp_path / "a.parquet", [_row(0, extra_info={"index": 0})])])
    assert found.problems[0].difficulty == "unspecified"


def test_limit_takes_the_same_random_problems_each_time_and_mixes_difficulties(tmp_path):
    rows = sorted((_row(i) for i in range(100)), key=lambda row: row["extra_info"]["difficulty"])
    file = _parquet(tmp_path / "a.parquet", rows)
    first, again = read_problems([file], 50).problems, read_problems([file], 50).problems
    assert first == again
    assert len({p.id for p in first}) == 50
    assert min(Counter(p.difficulty for p in first).values()) >= 5  # a cut after 50 rows would leave 3 levels out
    assert read_problems([file], 1000).problems == read_problems([file]).problems


def test_the_digest_of_a_set_depends_on_its_problems_and_not_on_their_order(tmp_path):
    forward = read_problems([_parquet(tmp_path / "a.parquet", [_row(0), _row(1)])])
    backward = read_problems([_parquet(tmp_path / "b.parquet", [_row(1), _row(0)])])
    other = read_problems([_parquet(tmp_path / "c.parquet", [_row(1), _row(2)])])
    assert forward.sha256() == backward.sha256() != other.sha256()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "1+1"}], r"missing column\(s\) data_source, prompt, reward_model; found question"),
        ([_row(0), _row(1, prompt=[])], r"1 of 2 rows.*row 1: prompt is not a non-empty list"),
        ([_row(0, prompt=[{"role": "user", "content": None}])], "row 0: a prompt message lacks a text role"),
        ([_row(0, reward_model={"style": "rule", "ground_truth": ""})], "ground_truth is empty"),
        ([_row(0, data_source="")], "data_source is empty"),
        ([_row(0, extra_info='{"difficulty": 1}')], r"row 0: extra_info is str, not a struct .*\(JSON text\?"),
        ([_row(0, reward_model='{"ground_truth": 1}')], "row 0: reward_model is str, not a struct"),
        ([_row(0, extra_info=[1, 2])], "row 0: extra_info is list, not a struct of named fields\\)"),
    ],
)
def test_rows_that_cannot_be_evaluated_are_counted_and_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_problems([_parquet(tmp_path / "a.parquet", rows)])


def test_a_file_without_rows_a_file_that_is_no_parquet_and_no_file_are_refused(tmp_path):
    empty = tmp_path / "empty.parquet"
    pd.DataFrame([_row(0)]).iloc[:0].to_parquet(empty)
    text = tmp_path / "text.parquet"
    text.write_text("hello")
    with pytest.raises(ValueError, match="holds no rows"):
        read_problems([empty])
    for file in (text, tmp_path / "missing.parquet"):
        with pytest.raises(ValueError, match="cannot be read as parquet"):
            read_problems([file])
    with pytest.raises(ValueError, match="--limit 0"):
        read_problems([empty], 0)


def test_file_sha256_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 40_000  # more than one block
    (tmp_path / "f").write_bytes(content)
    assert file_sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()
