import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recipe.hdpo.data.rows import (
    SCHEMA,
    DataError,
    Rejected,
    build_row,
    reject_reason,
    run_cli,
    schema_with,
    write_splits,
)

ROOT = Path(__file__).parents[3]


def row(index=0, split="train", **changes):
    fields = {"problem": "1+2=?", "solution": "1+2=3\n#### 3", "answer": "3"} | changes
    return build_row("some/source", split=split, index=index, **fields)


def test_a_row_holds_the_schema_and_no_solution_in_its_prompt():
    made = row(difficulty="2", prompt_text="1+2=?\nThink.")
    assert made == {
        "data_source": "some/source",
        "prompt": [{"role": "user", "content": "1+2=?\nThink."}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {
            "split": "train",
            "index": 0,
            "problem": "1+2=?",
            "solution": "1+2=3\n#### 3",
            "answer": "3",
            "difficulty": "2",
        },
    }


@pytest.mark.parametrize("name", ["problem", "solution", "answer"])
@pytest.mark.parametrize("value", [None, "", " \n", 3, ["x"]])
def test_a_row_without_a_part_is_rejected_by_its_name(name, value):
    fields = {"problem": "p", "solution": "s", "answer": "a"} | {name: value}
    assert reject_reason(**fields) == f"no {name}"


def test_a_lone_surrogate_is_rejected_because_parquet_cannot_hold_it():
    assert reject_reason("p \ud800", "s", "a") == "the problem is not valid Unicode"


@pytest.mark.parametrize("prompt_text", [None, "Q\nHint: 1+2=3   #### 3"])
def test_a_solution_in_the_prompt_is_a_leak_whatever_the_white_space(prompt_text):
    problem = "Q 1+2=3 #### 3" if prompt_text is None else "Q"
    assert reject_reason(problem, "1+2=3\n#### 3", "3", prompt_text) == "the solution stands in the prompt"


def test_a_solution_that_the_prompt_holds_in_part_is_no_leak():
    assert reject_reason("1+2=3 is given", "1+2=3\n#### 3", "3") is None


def test_build_row_refuses_what_reject_reason_rejects():
    with pytest.raises(ValueError, match="train row 7: no answer"):
        row(index=7, answer="")


def test_rejected_rows_are_counted_by_reason_and_the_first_five_are_named():
    rejected = Rejected()
    for number in range(7):
        rejected.add("no answer", number)
    rejected.add("no problem", 9)
    assert len(rejected) == 8
    assert rejected.lines() == [
        "rejected 7: no answer (source rows 0, 1, 2, 3, 4, ...)",
        "rejected 1: no problem (source rows 9)",
    ]


def test_written_rows_come_back_unchanged_with_the_fixed_schema(tmp_path):
    rows = {"train": [row(0), row(1, problem="2+2=?")], "test": [row(0, split="test")]}
    paths = write_splits(tmp_path / "new" / "folder", rows)
    assert [path.name for path in paths] == ["train.parquet", "test.parquet"]
    for path, split in zip(paths, rows.values(), strict=True):
        table = pq.read_table(path)
        assert table.schema.equals(SCHEMA)
        assert table.to_pylist() == split


def test_a_schema_with_further_texts_keeps_them_and_all_else(tmp_path):
    schema = schema_with("reference")
    reworded = row()
    reworded["extra_info"]["reference"] = "in words"
    [path] = write_splits(tmp_path, {"train": [reworded]}, schema)
    assert pq.read_table(path).to_pylist() == [reworded]
    assert [field.name for field in schema] == [field.name for field in SCHEMA]
    with pytest.raises(DataError, match=r"no place for extra_info\.reference"):
        write_splits(tmp_path, {"train": [reworded]})


def test_an_empty_split_writes_nothing(tmp_path):
    with pytest.raises(DataError, match="no usable row for the test split"):
        write_splits(tmp_path / "out", {"train": [row()], "test": []})
    assert not (tmp_path / "out").exists()


def test_a_failure_while_writing_keeps_the_former_files_and_leaves_no_temporary_ones(tmp_path):
    write_splits(tmp_path, {"train": [row()], "test": [row(split="test")]})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    broken = row(problem="9+9=?") | {"ability": 5}
    with pytest.raises(DataError, match="row 0 of the test split: ability must be string"):
        write_splits(tmp_path, {"train": [row(problem="9+9=?")], "test": [broken]})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# (changes of a row, what is said of it)
FAULTY = {
    "unknown key": ({"agent_name": "x"}, "no place for agent_name; the schema has data_source, prompt, ability"),
    "unknown key below": ({"extra_info": {"index": 0, "level": 3}}, "no place for extra_info.level;"),
    "unknown key of a message": (
        {"prompt": [{"role": "user", "content": "q", "name": "n"}]},
        "no place for prompt.name;",
    ),
    "unknown key of the reward": (
        {"reward_model": {"ground_truth": "3", "kind": 1}},
        "no place for reward_model.kind;",
    ),
    "no prompt": ({"prompt": None}, "prompt: there stands nothing"),
    "empty prompt": ({"prompt": []}, "prompt: there stands an empty list"),
    "text prompt": ({"prompt": "q"}, "prompt: there stands a text; make it"),
    "no user": ({"prompt": [{"role": "system", "content": "q"}]}, "prompt: there stands no user's message"),
    "no content": ({"prompt": [{"role": "user"}]}, "prompt: there stands a message whose content is nothing"),
    "from": ({"prompt": [{"from": "human", "value": "q"}]}, "no place for prompt.from, prompt.value"),
    "no truth": ({"reward_model": {"style": "rule"}}, "reward_model.ground_truth: there stands nothing"),
    "no reward model": ({"reward_model": None}, "reward_model.ground_truth: there stands nothing"),
    "blank truth": ({"reward_model": {"ground_truth": " "}}, "reward_model.ground_truth: there stands a blank text"),
    "text reward model": ({"reward_model": "{}"}, "reward_model: there stands JSON text"),
    "number as truth": ({"reward_model": {"ground_truth": 3}}, "reward_model must be struct<style"),
    "text as index": ({"extra_info": {"index": "a"}}, "extra_info must be struct<split"),
    "surrogate": ({"ability": "\ud800"}, "ability must be string"),
}


@pytest.mark.parametrize("changes, said", FAULTY.values(), ids=FAULTY)
def test_nothing_of_a_row_is_dropped_and_what_has_no_place_is_refused(tmp_path, changes, said):
    with pytest.raises(DataError) as error:
        write_splits(tmp_path, {"train": [row(0), row(1) | changes]})
    assert "row 1 of the train split: " + said in str(error.value) and list(tmp_path.iterdir()) == []


def test_a_row_without_a_prompt_or_that_is_no_dict_is_refused(tmp_path):
    without = {name: value for name, value in row().items() if name != "prompt"}
    for faulty, said in ((without, "prompt: there stands nothing"), (["x"], "it is a list, not a dict")):
        with pytest.raises(DataError, match=said):
            write_splits(tmp_path, {"train": [faulty]})


def test_a_row_of_a_data_set_without_worked_solutions_has_none_and_that_must_be_said(tmp_path):
    write_splits(tmp_path, {"train": [row(solution=None, worked=False)]})
    assert pq.read_table(tmp_path / "train.parquet").to_pylist()[0]["extra_info"]["solution"] is None
    with pytest.raises(ValueError, match="no solution"):
        row(solution=None)
    with pytest.raises(ValueError, match="no solution"):
        row(solution=" ", worked=False)


def test_an_output_path_that_is_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match=r"cannot write to .*taken.*--out"):
        write_splits(tmp_path / "taken", {"train": [row()]})


def test_a_data_error_becomes_one_line_and_exit_code_2(capsys):
    def run(args):
        raise DataError("what, where, how to mend")

    assert run_cli(run, None) == 2
    assert capsys.readouterr().err == "error: what, where, how to mend\n"


def test_the_documents_example_writes_a_row_that_the_recipe_takes(tmp_path: Path) -> None:
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=env, check=True)
    [row] = pq.read_table(tmp_path / "data" / "train.parquet").to_pylist()
    assert row["extra_info"]["solution"].endswith("#### 5") and row["reward_model"]["ground_truth"] == "5"
    assert row["prompt"][0]["content"].endswith("#### ANSWER.")
