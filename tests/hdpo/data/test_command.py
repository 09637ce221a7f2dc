"""``python -m recipe.hdpo.data`` on files in the forms of the hub and of users, and on those that it has to refuse."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_preprocess import openmathinstruct2
from recipe.hdpo.config.checks import check_config
from recipe.hdpo.data import main
from recipe.hdpo.data.convert import is_test
from recipe.hdpo.data.presets import BOXED, HASHED, PRESETS
from recipe.hdpo.data.sources import read
from tests.hdpo.composed_config import hydra_composed

Rows = list[dict[str, Any]]
COLUMNS = ("--problem", "question", "--solution", "rationale", "--answer", "final")


def write(path: Path, rows: Rows) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def mine(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "question": f"What is {number} plus 1?",
        "rationale": f"Adding, gives\n\\boxed{{{number + 1}}}.",
        "final": str(number + 1),
    } | changes


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str, list[Rows]]]:
    """Runs the command; a test fraction of a half, so that small inputs fill both splits."""

    def run(source: Any, *options: str, out: str = "out") -> tuple[int, str, str, list[Rows]]:
        folder = tmp_path / out
        given = [] if source is None else [str(source)]
        code = main([*given, "--out", str(folder), "--test-fraction", "0.5", *options])
        said = capsys.readouterr()
        splits = [folder / f"{split}.parquet" for split in ("train", "test")]
        rows = [pq.read_table(path).to_pylist() for path in splits if path.exists()]
        errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in said.err and len(errors) == (code == 2)
        return code, said.out, "".join(errors), rows

    return run


# A row in the form in which the hub has the data set, changed to the n-th of many; then what is read of it.
FORMS: dict[str, tuple[Callable[[int], dict[str, Any]], dict[str, str]]] = {
    "gsm8k": (
        lambda n: {
            "question": f"Natalia sold {n} clips in April, and half as many in May. How many in May?",
            "answer": f"In May she sold {n}/2 = <<{n}/2={n / 2:g}>>{n / 2:g} clips.\n#### {n * 500:,}",
        },
        {
            "prompt": f"Natalia sold 8 clips in April, and half as many in May. How many in May?\n{HASHED}",
            "solution": "In May she sold 8/2 = 4 clips.\n#### 4,000",
            "answer": "4000",
            "difficulty": "1",
        },
    ),
    "math": (
        lambda n: {
            "problem": f"Let $f(x)=x+{n}$. What is $f(1)/7$?",
            "level": "Level 5",
            "type": "Algebra",
            "solution": f"We have $f(1)={n + 1}$, so the answer is $\\boxed{{\\frac{{{n + 1}}}{{7}}}}$.",
        },
        {
            "prompt": f"Let $f(x)=x+8$. What is $f(1)/7$?\n{BOXED}",
            "solution": r"We have $f(1)=9$, so the answer is $\boxed{\frac{9}{7}}$.",
            "answer": r"\frac{9}{7}",
            "difficulty": "5",
        },
    ),
    "dapo": (
        lambda n: {
            "data_source": "math_dapo",
            "prompt": [
                {
                    "content": "Solve the following math problem step by step. The last line of your response should "
                    "be of the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
                    f"Find the sum\nof {n} and 1. {{x}}\n\n"
                    'Remember to put your answer on its own line after "Answer:".',
                    "role": "user",
                }
            ],
            "ability": "MATH",
            "reward_model": {"ground_truth": str(n + 1), "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": "9a9b6eb4-a1cb-49d1-8c1e-62eaf2f74079"},
        },
        {"prompt": f"Find the sum\nof 8 and 1. {{x}}\n{BOXED}", "solution": "", "answer": "9", "difficulty": "1"},
    ),
    "openmathinstruct2": (
        lambda n: {
            "problem": f"What is {n} plus 1?",
            "generated_solution": f"Adding gives \\boxed{{{n + 1}}}.",
            "expected_answer": str(n + 1),
            "problem_source": "augmented_math",
        },
        {
            "prompt": f"What is 8 plus 1?\n{BOXED}",
            "solution": r"Adding gives \boxed{9}.",
            "answer": "9",
            "difficulty": "1",
        },
    ),
    "deepmath": (
        lambda n: {
            "question": f"Evaluate the limit of $x+{n}$ at 1.",
            "final_answer": str(n + 1),
            "difficulty": 4.5,
            "topic": "Mathematics -> Precalculus -> Limits",
            "r1_solution_1": f"Okay, so is it \\boxed{{0}}? Wait.\n</think>\n\nBy continuity, \\boxed{{{n + 1}}}.",
            "r1_solution_2": "another",
            "r1_solution_3": "a third",
        },
        {
            "prompt": f"Evaluate the limit of $x+8$ at 1.\n{BOXED}",
            "solution": r"By continuity, \boxed{9}.",
            "answer": "9",
            "difficulty": "4.5",
        },
    ),
}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_reads_the_data_sets_own_form(convert: Any, tmp_path: Path, name: str) -> None:
    form, wanted = FORMS[name]
    file = write(tmp_path / "rows.parquet", [form(n) for n in range(2, 22, 2)])
    code, out, _, (train, test) = convert(file, "--preset", name)
    assert code == 0 and len(train) + len(test) == 10 and "rejected 0" in out
    [row] = [row for row in train + test if row["prompt"][0]["content"] == wanted["prompt"]]
    assert row["prompt"] == [{"role": "user", "content": wanted["prompt"]}]
    assert row["reward_model"] == {"style": "rule", "ground_truth": wanted["answer"]}
    assert row["data_source"] == PRESETS[name].hub and row["extra_info"]["problem"] + "\n" in wanted["prompt"]
    assert (row["extra_info"]["solution"] or "") == wanted["solution"]
    assert row["extra_info"]["answer"] == wanted["answer"] and row["extra_info"]["difficulty"] == wanted["difficulty"]
    assert ("+control=answer_only" in out) == (wanted["solution"] == "")


def test_a_preset_without_files_streams_its_columns_from_the_hub_with_its_test_split(
    convert: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    calls = []

    def load_dataset(*args: Any, **options: Any) -> Any:
        calls.append((*args, options))
        start = 100 if options["split"] == "test" else 0
        rows = [FORMS["gsm8k"][0](n) | {"further": n} for n in range(start, start + 4)]
        # One problem is in both splits.
        return datasets.Dataset.from_list([*rows, FORMS["gsm8k"][0](100)]).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    code, out, _, (train, test) = convert(None, "--preset", "gsm8k")
    assert code == 0 and len(train) == 4 and len(test) == 4
    assert calls == [
        ("openai/gsm8k", "main", {"split": "test", "streaming": True}),
        ("openai/gsm8k", "main", {"split": "train", "streaming": True}),
    ]
    assert "rejected 1: the problem is in the test split (source rows 4)" in out
    assert "test split: rejected 1: a further row of a problem that has one" in out
    assert set(next(read("openai/gsm8k", keys=["question", "answer"]))) == {"question", "answer"}


def test_the_hubs_errors_are_one_line_that_says_to_pass_a_file(convert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*args: Any, **options: Any) -> Any:
        raise ConnectionError("no route\nat all")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    code, _, error, _ = convert(None, "--preset", "deepmath")
    assert code == 2 and "cannot read zwhe99/DeepMath-103K" in error and "(ConnectionError: no route)" in error
    assert "pass a file of it" in error


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_columns_named_by_flags_become_rows_of_the_schema(convert: Any, tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, [mine(n) for n in range(20)])
    code, out, _, (train, test) = convert(file, *COLUMNS, "--instruction", "Think.")
    assert code == 0 and len(train) + len(test) == 20
    for split, rows in (("train", train), ("test", test)):
        assert [row["extra_info"]["index"] for row in rows] == list(range(len(rows)))
        for row in rows:
            info = row["extra_info"]
            assert row["prompt"] == [{"role": "user", "content": f"{info['problem']}\nThink."}]
            assert row["data_source"] == "rows" and info["split"] == split
            assert (split == "test") == is_test(info["problem"], 0.5, 42)
            assert info["solution"] == f"Adding, gives\n\\boxed{{{info['answer']}}}."
    assert "row 0 of train:\n  prompt: What is" in out and "ground truth: " in out


def test_the_next_command_is_one_that_verl_takes_and_reads_the_written_files(convert: Any, tmp_path: Path) -> None:
    from verl.utils.config import validate_config

    _, out, _, _ = convert(write(tmp_path / "a.jsonl", [mine(n) for n in range(8)]), *COLUMNS[:2], "--answer", "final")
    words = shlex.split(out.rstrip().splitlines()[-1])
    assert words[:4] == ["next:", "python", "-m", "verl.trainer.main_ppo"]
    config = hydra_composed(*words[words.index("hdpo_trainer") + 1 :])
    assert check_config(config).privileged.source == "answer"
    validate_config(config, use_reference_policy=False, use_critic=False)
    assert config.data.train_files == str(tmp_path / "out" / "train.parquet")


def test_without_an_answer_column_it_is_what_the_solution_ends_with(convert: Any, tmp_path: Path) -> None:
    rows = [mine(n) for n in range(8)] + [mine(9, rationale="Adding gives #### 10"), mine(10, rationale="It is 11.")]
    rows += [mine(11, rationale="#### Conclusion\nIt is 12."), mine(12, rationale="So:\n#### Alice")]
    _, out, _, (train, test) = convert(write(tmp_path / "a.jsonl", rows), *COLUMNS[:4])
    assert {row["reward_model"]["ground_truth"] for row in train + test} == {
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "10",
        "Alice",
    }
    # A heading that text follows is no answer, words at the end are one.
    assert "rejected 2: no answer (none could be read from rationale) (source rows 9, 10)" in out


def test_objects_and_conversations_are_looked_into(convert: Any, tmp_path: Path) -> None:
    """The ways out that start-up names: prompts as text or with from and value, objects as JSON text."""
    rows = [
        {
            "prompt": [{"from": "human", "value": f"{n}+1?"}] if n % 2 else [{"role": "user", "content": f"{n}+1?"}],
            "extra_info": json.dumps({"deep": {"solution": f"gives {n + 1}"}}),
            "reward_model": {"ground_truth": n + 1},
        }
        for n in range(12)
    ]
    options = ("--problem", "prompt", "--solution", "extra_info.deep.solution", "--answer", "reward_model.ground_truth")
    code, _, _, (train, test) = convert(write(tmp_path / "a.jsonl", rows), *options, "--instruction", "")
    assert code == 0 and len(train + test) == 12
    for row in train + test:
        answer = row["reward_model"]["ground_truth"]
        assert (
            row["prompt"][0]["content"] == f"{int(answer) - 1}+1?"
            and row["extra_info"]["solution"] == f"gives {answer}"
        )


@pytest.mark.parametrize(
    "row, solution",
    [
        ({"meta.sol": "Look."}, "meta.sol"),
        ({"meta.sol": {"text": "Look."}}, "meta.sol.text"),
        ({"meta": {"sol.text": "Look."}}, "meta.sol.text"),
        ({"meta": '{"sol.text": "Look."}', "meta.sol": "another"}, "meta.sol.text"),
        ({"meta": {"sol": "another"}, "meta.sol": "Look."}, "meta.sol"),
    ],
)
def test_a_columns_name_may_have_dots(convert: Any, tmp_path: Path, row: dict[str, Any], solution: str) -> None:
    file = write(tmp_path / "a.jsonl", [mine(n) | row for n in range(12)])
    options = ("--problem", "question", "--solution", solution, "--answer", "final")
    code, _, error, splits = convert(file, *options)
    assert code == 0, error
    assert {row["extra_info"]["solution"] for rows in splits for row in rows} == {"Look."}


def test_of_the_hub_columns_with_dots_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"meta": {"sol": "a"}, "meta.sol": "b", "meta.ans": "c"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: rows.to_iterable_dataset())
    [row] = read("owner/name", keys=["meta.sol", "meta.ans"])
    assert row == {"meta.sol": "b", "meta.ans": "c"}


# (what is changed in a row, why it is left out)
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "no problem": ({"question": None}, "no problem (question holds nothing)"),
    "blank problem": ({"question": " \n"}, "no problem (question holds a blank text)"),
    "zero-width problem": ({"question": "\u200b\ufeff"}, "no problem (question holds a blank text)"),
    "list problem": ({"question": ["a", "b"]}, "no problem (question holds a list of texts)"),
    "dict problem": ({"question": {"text": "a"}}, "no problem (question holds a dict)"),
    "turns": ({"question": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}, "the problem is a"),
    "empty turn": ({"question": [{"role": "user"}]}, "no problem (question holds a list)"),
    "surrogate": ({"question": "q \ud800"}, "the problem is not valid Unicode"),
    "no solution": ({"rationale": None}, "no solution (rationale holds nothing)"),
    "blank solution": ({"rationale": ""}, "no solution (rationale holds a blank text)"),
    "NUL solution": ({"rationale": "\x00\x00"}, "no solution (rationale holds a blank text)"),
    "steps": ({"rationale": ["a", "b"]}, "no solution (rationale holds a list of texts)"),
    "no steps": ({"rationale": []}, "no solution (rationale holds an empty list)"),
    "dict solution": ({"rationale": {"text": "a"}}, "no solution (rationale holds a dict)"),
    "NaN solution": ({"rationale": float("nan")}, "no solution (rationale holds nan)"),
    "bool solution": ({"rationale": True}, "no solution (rationale holds a bool)"),
    "leak": ({"question": "So 5. Why?", "rationale": "So 5.", "final": "5"}, "the solution stands in the prompt"),
    "no answer": ({"final": None}, "no answer (final holds nothing)"),
    "empty answer": ({"final": ""}, "no answer (final holds a blank text)"),
    "NaN answer": ({"final": float("nan")}, "no answer (final holds nan)"),
    "infinite answer": ({"final": float("inf")}, "no answer (final holds inf)"),
    "list answer": ({"final": ["18"]}, "no answer (final holds a list of texts)"),
    "bool answer": ({"final": False}, "no answer (final holds a bool)"),
    "dict answer": ({"final": {"value": 18}}, "no answer (final holds a dict)"),
    "another answer": ({"final": "77"}, "the solution states another answer"),
    "another, no heading": ({"rationale": "Look.\n#### 5\nDone."}, "the solution states another answer"),
    "another, in words": ({"rationale": "Look.\n#### Alice\n"}, "the solution states another answer"),
    "another, in a box": ({"rationale": "#### Step 1\n\\boxed{Al}\n."}, "the solution states another answer"),
    "long answer": ({"rationale": "Look.", "final": "7 " * 600}, "the answer is a text of more than 1000 characters"),
    "whole answer": ({"rationale": "Look.", "final": "5+6=11\n#### 11"}, "the answer is what is not equal to itself"),
    "unreadable": ({"rationale": "Look.", "final": "\\frac{1}{"}, "the answer is what can't be read as mathematics"),
    "a part unreadable": (
        {"rationale": "Look.", "final": "(1, \\frac{)"},
        "the answer is what can't be read as mathematics",
    ),
    "signs": ({"rationale": "Look.", "final": "??"}, "the answer is what can't be read as mathematics"),
    "same": ({"question": "What is  0\nplus 1?"}, "a further row of a problem that has one ("),
    "same, other answer": (
        {"question": "What is 0 plus 1?", "rationale": "Look.", "final": "2"},
        "a further row of a problem that has one, with another answer",
    ),
}


def test_every_row_that_is_left_out_is_counted_by_its_reason_and_named(convert: Any, tmp_path: Path) -> None:
    good = [mine(n) for n in range(10)]
    bad = [mine(1000 + n) | changes for n, (changes, _) in enumerate(HOSTILE.values())]
    same = list(HOSTILE).index("same")
    bad[same] |= {"rationale": good[0]["rationale"], "final": "1"}
    file = write(tmp_path / "a.jsonl", good + bad)
    code, out, _, (train, test) = convert(file, *COLUMNS)
    assert code == 0 and len(train + test) == 10
    for number, (name, (_, reason)) in enumerate(HOSTILE.items()):
        lines = [line for line in out.splitlines() if reason in line]
        assert any(str(10 + number) in line.partition("source rows")[2] for line in lines), (name, reason, out)
    assert sum(int(line.split()[1][:-1]) for line in out.splitlines() if line.startswith("rejected")) == len(bad)


# What looks odd and is a row all the same: (changes, answer)
ODD: dict[str, tuple[dict[str, Any], str]] = {
    "a number": ({"final": 3, "rationale": "Look."}, "3"),
    "a decimal": ({"final": 1.5, "rationale": "Look."}, "1.5"),
    "a huge number": ({"final": 10**400, "rationale": "Look."}, str(10**400)),
    "words": ({"final": "Alice", "rationale": "It was Alice."}, "Alice"),
    "Chinese": ({"question": "甲还是乙", "final": "甲", "rationale": "是甲"}, "甲"),
    "braces": ({"question": "{{ problem }} {% x %}", "rationale": "{{ 1/0 }}", "final": "4"}, "4"),
    "spaces": ({"final": " 18 ", "rationale": "\n Look. \n"}, "18"),
    "a tuple": ({"final": "(1, 2)", "rationale": "Look."}, "(1, 2)"),
    "two boxes": ({"final": "45, 2", "rationale": r"\boxed{45} and \boxed{2}"}, "45, 2"),
    "a heading": ({"rationale": "#### Step 1: Read\nAdd.\n\n#### Conclusion\nThe answer is 61.", "final": 61}, "61"),
    "a heading, words": ({"rationale": "#### Conclusion\r\nIt is Paris.", "final": "Paris"}, "Paris"),
    "a comment": ({"rationale": "```python\n#### main part\nprint(63)\n```", "final": "63"}, "63"),
    "percent": ({"final": "28\\%", "rationale": r"\boxed{0.28}"}, "28\\%"),
}


def test_odd_rows_are_kept_as_they_are_written(convert: Any, tmp_path: Path) -> None:
    rows = [mine(50 + n) | changes for n, (changes, _) in enumerate(ODD.values())]
    code, _, _, (train, test) = convert(write(tmp_path / "a.jsonl", [*rows, *map(mine, range(6))]), *COLUMNS)
    assert code == 0
    found = {row["reward_model"]["ground_truth"] for row in train + test}
    assert {answer for _, answer in ODD.values()} <= found and len(train + test) == len(ODD) + 6


def test_grading_can_be_left_out_and_texts_joined(convert: Any, tmp_path: Path) -> None:
    rows = [mine(n, rationale=["one", "two"], final="\\frac{1}{") for n in range(8)]
    code, _, _, (train, _) = convert(write(tmp_path / "a.jsonl", rows), *COLUMNS, "--no-grading", "--join-texts")
    assert code == 0 and train[0]["extra_info"]["solution"] == "one\ntwo"


def test_only_some_rows_and_at_most_so_many_are_read(convert: Any, tmp_path: Path) -> None:
    rows = [mine(n, source="a" if n % 2 else "b", level=n % 3) for n in range(60)]
    file = write(tmp_path / "a.parquet", rows)
    code, out, _, (train, test) = convert(
        file, *COLUMNS, "--only", "source=a", "--only", "level=0,1", "--max-rows", "15"
    )
    kept = sorted(int(row["extra_info"]["answer"]) - 1 for row in train + test)
    assert code == 0 and kept == [n for n in range(60) if n % 2 and n % 3 < 2][:15] and "another source" in out


@pytest.mark.parametrize(
    "value, spelling",
    [(True, "true"), (True, "True"), (None, "null"), (1.0, "1"), (1.0, "1.0"), (1.5, "1.5"), (3, "3"), ("a", "a")],
)
def test_only_takes_a_value_as_json_or_python_writes_it_and_a_whole_float_as_its_integer(
    convert: Any, tmp_path: Path, value: Any, spelling: str
) -> None:
    rows = [mine(n, at=value if n % 2 else "else") for n in range(16)]
    code, _, error, (train, test) = convert(write(tmp_path / "a.jsonl", rows), *COLUMNS, "--only", f"at={spelling}")
    assert code == 0 and len(train + test) == 8, error


def test_a_problem_keeps_its_split_when_more_rows_are_read_and_the_seed_decides(convert: Any, tmp_path: Path) -> None:
    splits = {}
    for count, seed in ((20, "42"), (60, "42"), (60, "43")):
        file = write(tmp_path / f"{count}.jsonl", [mine(n) for n in reversed(range(count))])
        _, _, _, found = convert(file, *COLUMNS, "--seed", seed, out=f"{count}-{seed}")
        splits[count, seed] = [{row["extra_info"]["problem"] for row in rows} for rows in found]
    (train_20, test_20), (train_60, test_60) = splits[20, "42"], splits[60, "42"]
    assert train_20 <= train_60 and test_20 <= test_60 and not train_60 & test_60
    assert splits[60, "43"][1] != test_60


def test_by_default_5_percent_are_held_out_by_seed_42(tmp_path: Path) -> None:
    assert 200 < sum(is_test(f"problem {n}", 0.05, 42) for n in range(5000)) < 300
    file = write(tmp_path / "a.jsonl", [FORMS["openmathinstruct2"][0](n) for n in range(200)])
    assert openmathinstruct2.main([str(file), "--out", str(tmp_path / "out")]) == 0
    held_out = {row["extra_info"]["problem"] for row in pq.read_table(tmp_path / "out" / "test.parquet").to_pylist()}
    assert held_out == {text for n in range(200) if is_test(text := f"What is {n} plus 1?", 0.05, 42)}


def test_files_for_the_test_split_share_no_problem_with_training(convert: Any, tmp_path: Path) -> None:
    train_file = write(tmp_path / "a.jsonl", [mine(n) for n in range(10)])
    test_file = write(tmp_path / "b.csv", [mine(n) for n in range(8, 12)])
    code, out, _, (train, test) = convert(train_file, *COLUMNS, "--test", str(test_file))
    assert code == 0 and len(train) == 8 and len(test) == 4
    assert "rejected 2: the problem is in the test split (source rows 8, 9)" in out


def bad_files(folder: Path) -> dict[str, tuple[str, str]]:
    """(file, expected message) for every way in which a file can be unusable."""
    line = json.dumps(mine(1)) + "\n"
    whole = write(folder / "good.parquet", [mine(n) for n in range(50)]).read_bytes()
    contents: dict[str, tuple[bytes | str, str]] = {
        "cut.parquet": (whole[: len(whole) // 2], "not a whole parquet file"),
        "not.parquet": ("text", "not a whole parquet file"),
        "cut.jsonl": (line + "\n" + line[:-9], "line 3: not JSON"),
        "list.jsonl": ("[1]\n", "line 1: not a JSON object but a list"),
        "deep.jsonl": (line + '{"a":' + "[" * 100_000, "line 2: JSON that nests too deep"),
        "digits.jsonl": ('{"final": ' + "1" * 5000 + "}\n", "line 1: not JSON (Exceeds the limit"),
        "binary.jsonl": (b"\xff\xfe\x00{}", "cannot be read as UTF-8"),
        "empty.jsonl": ("\n", "the file has no rows"),
        "columns.jsonl": (
            '{"problem": "p", "extra_info": {"answer": "1"}}\n',
            "no column question, rationale, final; there",
        ),
        "names.jsonl": ('{"problem": "p", "extra_info": {"answer": "1"}}\n', "there are problem, extra_info.answer"),
        "cut.json": ('[{"question": 1}', "cut.json: not JSON"),
        "entry.json": ('[{"question": "q"}, 3]', "entry 1: not a JSON object but a int"),
        "none.json": ("[]", "the file has no rows"),
        "short.csv": ("question,rationale,final\na,b\n", "line 2: 2 values for 3 columns"),
        "long.csv": ("question,rationale,final\na,b,c\na,b,c,d\n", "line 3: 4 values for 3 columns"),
        "twice.csv": ("question,question,final\na,b,c\n", "two columns are called question"),
        "quote.csv": ('question,rationale,final\na,"b,c\n', "line 2: not CSV"),
        "header.csv": ("question,rationale,final\n", "the file has no rows"),
        "nothing.csv": ("", "the file has no rows"),
        "other.csv": ("q;a\n1;2\n", "no column question, rationale, final; there are q;a"),
        "rows.txt": ("x", "the name must end in .parquet, .jsonl, .json, .csv"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "folder").mkdir()
    found = {name: (name, message) for name, (_, message) in contents.items()}
    return found | {"absent": ("absent.jsonl", "no such file"), "folder": ("folder", "is a folder: name its files")}


def test_an_unusable_file_is_one_clear_error_and_writes_nothing(convert: Any, tmp_path: Path) -> None:
    for name, message in bad_files(tmp_path).values():
        code, _, error, rows = convert(tmp_path / name, *COLUMNS)
        assert code == 2 and message in error and name in error and rows == [], (name, error)


@pytest.mark.parametrize(
    "options, message",
    [
        ((*COLUMNS, "--test-fraction", "1"), "--test-fraction 1.0: it must lie between 0 and 1"),
        (
            ("--problem", "question"),
            "name the columns, --problem and --solution or --answer or both, or take a --preset",
        ),
        (
            (*COLUMNS, "--only", "question=x"),
            "no usable row; rejected 8: another question (source rows 0, 1, 2, 3, 4, ...)",
        ),
        ((*COLUMNS, "--test-fraction", "1e-9"), "none of the 8 problems falls into the test split"),
        (
            ("--preset", "deepmath"),
            "no column r1_solution_1, final_answer, difficulty; there are question, rationale, final",
        ),
        ((*COLUMNS, "--config", "main"), "--config main is for a data set on the hub, and "),
        ((*COLUMNS, "--split", "test"), "--split test is for a data set on the hub, and "),
        ((*COLUMNS, "--test-split", "val"), "--test-split val is for a data set on the hub, and "),
        (
            (*COLUMNS, "--test", "b.csv", "--test-split", "val"),
            "--test-split val is for a data set on the hub, and b.csv",
        ),
        ((*COLUMNS, "--gym-config", '{"gcd": {}}'), "--gym-config is for --gym TASK"),
        ((*COLUMNS, "--difficulty", "level"), "no column level; there are question, rationale, final"),
    ],
)
def test_options_that_do_not_fit_are_one_clear_error(
    convert: Any, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    code, _, error, rows = convert(write(tmp_path / "a.jsonl", [mine(n) for n in range(8)]), *options)
    assert code == 2 and message in error and rows == []


def test_files_beside_a_data_set_on_the_hub_take_its_options(convert: Any, monkeypatch: Any, tmp_path: Path) -> None:
    import datasets

    calls = []

    def load_dataset(*args: Any, **options: Any) -> Any:
        calls.append((*args, options["split"]))
        return datasets.Dataset.from_list([mine(n) for n in range(100, 104)]).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    file = write(tmp_path / "a.jsonl", [mine(n) for n in range(8)])
    hub = ("--test", "owner/name", "--config", "main", "--test-split", "val")
    code, _, error, (train, test) = convert(file, *COLUMNS, *hub)
    assert code == 0 and calls == [("owner/name", "main", "val")] and (len(train), len(test)) == (8, 4), error


def test_without_a_source_or_a_preset_both_are_named(convert: Any) -> None:
    code, _, error, _ = convert(None, *COLUMNS)
    assert code == 2 and "name a file or a data set of the hub (OWNER/NAME), or a --preset" in error
