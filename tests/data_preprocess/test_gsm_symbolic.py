import pyarrow.parquet as pq
import pytest

from data_preprocess.gsm_symbolic import clean_problem, clean_solution, collect, difficulty_of, main
from recipe.hdpo.data.presets import HASHED
from recipe.hdpo.data.rows import Rejected


def item(question="How many?", answer="8", cot="4*2=8\n#### 8", **metadata):
    return {"question": question, "answer": answer, "metadata": {"answer_cot": cot, **metadata}}


def test_the_generators_instruction_and_runs_of_white_space_go():
    question = "Ann has 3  eggs.\nHow many? Give the result as your final answer. Do not include units."
    assert clean_problem(question) == "Ann has 3 eggs. How many?"


@pytest.mark.parametrize(
    ("cot", "answer", "cleaned"),
    [
        ("4*2=8\n#### 8", "8", "4*2=8\n#### 8"),
        ("4*2=8  \n\n#### 8.0", "8", "4*2=8\n#### 8"),
        ("4*2=8\n#### 9", "8", None),
        ("4*2=8", "8", None),
        ("#### 8", "8", None),
        ("", "8", None),
    ],
)
def test_a_solution_ends_with_the_answer_or_is_none(cot, answer, cleaned):
    assert clean_solution(cot, answer) == cleaned


def test_the_difficulty_is_the_generators_or_1():
    assert difficulty_of({"difficulty": 1.0}) == "1"
    assert difficulty_of({"difficulty": 1.5}) == "1.5"
    assert difficulty_of({}) == "1"


def test_repeated_and_unusable_problems_are_counted_and_the_next_ones_taken():
    items = [
        item("A?"),
        item("A?"),
        item("B?", cot="no end"),
        item("C?", cot=None),
        item("", "8"),
        item("D?"),
        item("E?"),
    ]
    rejected = Rejected()
    kept = collect(items, 2, rejected)
    assert [row["problem"] for row in kept] == ["A?", "D?"]
    assert rejected.by_reason == {
        "the same problem as an earlier row": [1],
        "no solution that ends with the answer": [2, 3],
        "no problem": [4],
    }


def test_generated_rows_are_distinct_and_end_with_their_answer(tmp_path):
    assert main(["--out", str(tmp_path), "--train-size", "30", "--test-size", "10", "--seed", "3"]) == 0
    train, test = (pq.read_table(tmp_path / f"{split}.parquet").to_pylist() for split in ("train", "test"))
    assert (len(train), len(test)) == (30, 10)
    assert len({row["extra_info"]["problem"] for row in train + test}) == 40
    for row in train + test:
        info = row["extra_info"]
        assert info["solution"].endswith(f"\n#### {info['answer']}")
        assert row["reward_model"]["ground_truth"] == info["answer"]
        assert row["prompt"][0]["content"] == f"{info['problem']}\n{HASHED}"
        assert "final answer" not in row["prompt"][0]["content"]


def test_the_same_seed_gives_the_same_files(tmp_path):
    options = ["--train-size", "10", "--test-size", "5", "--seed"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["--out", str(tmp_path / name), *options, seed]) == 0
    a, b, c = ((tmp_path / name / "train.parquet").read_bytes() for name in "abc")
    assert a == b != c


def test_a_generator_that_gives_too_little_is_one_clear_error(tmp_path, capsys, monkeypatch):
    import reasoning_gym

    monkeypatch.setattr(reasoning_gym, "create_dataset", lambda *args, **kwargs: [item("A?"), item("A?")])
    assert main(["--out", str(tmp_path), "--train-size", "3", "--test-size", "1"]) == 2
    assert "gave 1 usable problems in 2 draws, 4 were asked for" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
