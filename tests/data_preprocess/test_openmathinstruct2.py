import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_preprocess import openmathinstruct2
from data_preprocess.openmathinstruct2 import INSTRUCTION, is_test, main
from recipe.hdpo.data.rows import DataError


def source_row(number, **changes):
    return {
        "problem": f"What is {number} plus 1?",
        "generated_solution": f"Adding gives \\boxed{{{number + 1}}}.",
        "expected_answer": str(number + 1),
        "problem_source": "gsm8k" if number % 2 else "math",
    } | changes


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def convert(path, out, *options):
    """Runs the script; a test fraction of a half, so that small inputs fill both splits."""
    return main(["--input", str(path), "--out", str(out), "--test-fraction", "0.5", *options])


def read(out):
    return [pq.read_table(out / f"{split}.parquet").to_pylist() for split in ("train", "test")]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_every_problem_becomes_one_row_in_one_split(tmp_path, name):
    assert convert(write(tmp_path / name, [source_row(n) for n in range(40)]), tmp_path / "out") == 0
    train, test = read(tmp_path / "out")
    assert len(train) + len(test) == 40 and train and test
    for row in train + test:
        info = row["extra_info"]
        assert row["data_source"] == "nvidia/OpenMathInstruct-2"
        assert row["prompt"] == [{"role": "user", "content": f"{info['problem']}\n{INSTRUCTION}"}]
        assert row["reward_model"]["ground_truth"] == info["answer"]
        assert f"\\boxed{{{info['answer']}}}" in info["solution"]
        assert (info["split"] == "test") == is_test(info["problem"], 0.5, 42)


def test_the_first_solution_of_a_problem_is_kept_and_the_others_are_counted(tmp_path, capsys):
    rows = [source_row(n) for n in range(10)]
    rows += [source_row(n, generated_solution=f"Another: \\boxed{{{n + 1}}}") for n in range(10)]
    rows += [source_row(0, problem="What  is 0 plus\n1?")]
    assert convert(write(tmp_path / "a.jsonl", rows), tmp_path / "out") == 0
    train, test = read(tmp_path / "out")
    assert len(train) + len(test) == 10
    assert all("Another" not in row["extra_info"]["solution"] for row in train + test)
    assert "rejected 11: a further solution of a problem that has one (source rows 10, 11," in capsys.readouterr().out


def test_unusable_rows_are_counted_by_reason_and_named(tmp_path, capsys):
    rows = [source_row(n) for n in range(10)] + [
        source_row(10, problem=None),
        source_row(11, generated_solution=" "),
        source_row(12, expected_answer=""),
        source_row(13, generated_solution="So \\boxed{99}."),
        source_row(14, problem="Show that so it is \\boxed{15}.", generated_solution="so it is \\boxed{15}."),
    ]
    assert convert(write(tmp_path / "a.jsonl", rows), tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "rejected 1: no problem (source rows 10)" in out
    assert "rejected 1: no solution (source rows 11)" in out
    assert "rejected 1: no answer (source rows 12)" in out
    assert "rejected 1: the solution states another answer than expected_answer (source rows 13)" in out
    assert "rejected 1: the solution stands in the prompt (source rows 14)" in out
    assert sum(map(len, read(tmp_path / "out"))) == 10


def test_sources_filter_and_max_rows_stop(tmp_path):
    path = write(tmp_path / "a.parquet", [source_row(n) for n in range(60)])
    assert convert(path, tmp_path / "out", "--sources", "gsm8k", "--max-rows", "20") == 0
    numbers = [int(row["extra_info"]["answer"]) - 1 for rows in read(tmp_path / "out") for row in rows]
    assert sorted(numbers) == list(range(1, 41, 2))


def test_a_problem_keeps_its_split_when_more_rows_are_read(tmp_path):
    splits = []
    for count in (20, 60):
        path = write(tmp_path / f"{count}.jsonl", [source_row(n) for n in reversed(range(count))])
        assert convert(path, tmp_path / str(count)) == 0
        splits.append([{row["extra_info"]["problem"] for row in rows} for rows in read(tmp_path / str(count))])
    (train_20, test_20), (train_60, test_60) = splits
    assert train_20 <= train_60 and test_20 <= test_60 and not train_60 & test_60


def test_the_held_out_share_is_the_test_fraction():
    held_out = sum(is_test(f"problem {n}", 0.1, 42) for n in range(5000))
    assert 400 < held_out < 600


def test_by_default_5_percent_of_the_problems_are_held_out_by_seed_42(tmp_path):
    path = write(tmp_path / "a.jsonl", [source_row(n) for n in range(300)])
    held_out = []
    for name, options in (
        ("default", []),
        ("said", ["--seed", "42", "--test-fraction", "0.05"]),
        ("43", ["--seed", "43"]),
    ):
        assert main(["--input", str(path), "--out", str(tmp_path / name), *options]) == 0
        held_out.append({row["extra_info"]["problem"] for row in read(tmp_path / name)[1]})
    assert held_out[0] == held_out[1] and held_out[0] != held_out[2]
    assert 5 <= len(held_out[0]) <= 27  # 15 expected; 3 standard deviations of 3.8


def broken_files(folder):
    """(file, expected message) for every way in which a file can be unusable."""
    good = write(folder / "good.parquet", [source_row(n) for n in range(50)]).read_bytes()
    (folder / "cut.parquet").write_bytes(good[: len(good) // 2])
    (folder / "not.parquet").write_text("text")
    (folder / "cut.jsonl").write_text(json.dumps(source_row(1)) + "\n" + json.dumps(source_row(2))[:-9])
    (folder / "list.jsonl").write_text("[1]\n")
    (folder / "binary.jsonl").write_bytes(b"\xff\xfe\x00{}")
    (folder / "empty.jsonl").write_text("\n")
    write(folder / "columns.jsonl", [{"question": "q", "problem": "p"}])
    pq.write_table(pa.table({"problem": ["p"]}), folder / "columns.parquet")
    pq.write_table(pa.Table.from_pylist([source_row(1)]).slice(0, 0), folder / "empty.parquet")
    (folder / "rows.csv").write_text("problem\n")
    return {
        "missing.parquet": "no such file",
        "cut.parquet": "not a whole parquet file",
        "not.parquet": "not a whole parquet file",
        "cut.jsonl": "line 2: not JSON",
        "list.jsonl": "line 1: not a JSON object",
        "binary.jsonl": "cannot be read as UTF-8",
        "empty.jsonl": "the file has no rows",
        "empty.parquet": "the file has no rows",
        "columns.jsonl": "no column generated_solution, expected_answer, problem_source",
        "columns.parquet": "no column generated_solution, expected_answer, problem_source",
        "rows.csv": "the name must end in .parquet or .jsonl",
    }


def test_an_unusable_file_is_one_clear_error_with_exit_code_2_and_writes_nothing(tmp_path, capsys):
    for name, message in broken_files(tmp_path).items():
        assert convert(tmp_path / name, tmp_path / "out") == 2, name
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and message in errors[0] and name in errors[0], (name, errors)
    assert not (tmp_path / "out").exists()


def test_no_usable_row_names_the_reasons(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [source_row(1)])
    assert convert(path, tmp_path / "out", "--sources", "aime") == 2
    assert "no usable row; rejected 1: another problem_source (source rows 0)" in capsys.readouterr().err


def test_an_empty_split_is_one_clear_error(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [source_row(1)])
    assert convert(path, tmp_path / "out") == 2
    assert "none of the 1 problems falls into the" in capsys.readouterr().err


def test_a_test_fraction_outside_0_to_1_is_refused(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [source_row(1)])
    assert main(["--input", str(path), "--out", str(tmp_path), "--test-fraction", "1"]) == 2
    assert "--test-fraction 1.0" in capsys.readouterr().err


def test_an_unreachable_hub_says_to_pass_a_file(tmp_path, capsys, monkeypatch):
    import datasets

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert "(ConnectionError): check the network" in (error := capsys.readouterr().err) and "--input" in error


def test_the_hub_is_read_as_a_stream_of_the_four_columns(monkeypatch):
    import datasets

    calls = []

    def load_dataset(name, **options):
        calls.append((name, options))
        rows = [source_row(1, extra="x")]
        return datasets.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(openmathinstruct2.read_hub()) == [source_row(1)]
    assert calls == [("nvidia/OpenMathInstruct-2", {"split": "train", "streaming": True})]


def test_read_file_raises_a_data_error_of_its_own(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list(openmathinstruct2.read_file(tmp_path / "none.jsonl"))
