import collections

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_preprocess.sums import main, problem_text, shares, solution_text, terms_of


def make(tmp_path, *options):
    assert main(["--out", str(tmp_path), *options]) == 0
    return [pq.read_table(tmp_path / f"{split}.parquet").to_pylist() for split in ("train", "test")]


def sizes(rows):
    return collections.Counter(row["extra_info"]["difficulty"] for row in rows)


def test_the_texts_of_a_sum_worked_by_hand():
    assert problem_text([3, 8, 5, 2]) == "3+8+5+2=?"
    assert solution_text([3, 8, 5, 2]) == "3+8=11\n11+5=16\n16+2=18\n#### 18"
    assert solution_text([9, 9]) == "9+9=18\n#### 18"


@given(st.lists(st.integers(1, 99), min_size=2, max_size=6))
def test_every_line_of_a_solution_is_a_true_sum_that_goes_on_from_the_last(terms):
    *steps, last = solution_text(terms).split("\n")
    total = terms[0]
    for step, term in zip(steps, terms[1:], strict=True):
        left, result = step.split("=")
        assert left == f"{total}+{term}"
        total += term
        assert result == str(total)
    assert last == f"#### {sum(terms)}"


def test_every_number_below_the_count_is_another_sum():
    assert len({terms_of(n, 3, 4) for n in range(4**3)}) == 4**3
    assert terms_of(0, 3, 9) == (1, 1, 1) and terms_of(9**3 - 1, 3, 9) == (9, 9, 9)


@given(st.integers(0, 1000), st.lists(st.floats(0, 10), min_size=1, max_size=5).filter(lambda w: sum(w) > 0.01))
def test_shares_add_up_and_are_within_one_of_the_exact_proportion(total, weights):
    counts = shares(total, weights)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * weight / sum(weights)) < 1


def test_the_default_splits_share_no_problem_and_the_test_split_is_balanced(tmp_path):
    train, test = make(tmp_path)
    assert sizes(train) == dict.fromkeys("23456", 400)
    assert sizes(test) == dict.fromkeys("23456", 40)
    problems = [{row["extra_info"]["problem"] for row in rows} for rows in (train, test)]
    assert not problems[0] & problems[1]
    assert len(problems[1]) == len(test)


def test_the_answer_is_the_sum_and_the_prompt_is_the_problem_alone(tmp_path):
    for rows, split in zip(make(tmp_path, "--train-size", "20", "--test-size", "10"), ("train", "test"), strict=True):
        for index, row in enumerate(rows):
            info = row["extra_info"]
            terms = [int(term) for term in info["problem"].removesuffix("=?").split("+")]
            assert row["reward_model"]["ground_truth"] == info["answer"] == str(sum(terms))
            assert info["difficulty"] == str(len(terms))
            assert row["prompt"] == [{"role": "user", "content": info["problem"]}]
            assert info["solution"] == solution_text(terms)
            assert (info["split"], info["index"]) == (split, index)


def test_too_few_distinct_problems_are_halved_and_reported(tmp_path, capsys):
    train, test = make(tmp_path, "--max-terms", "2", "--train-size", "100", "--test-size", "60")
    assert len(test) == 40 and len(train) == 100
    trained = {row["extra_info"]["problem"] for row in train}
    assert len(trained) == 41
    assert not trained & {row["extra_info"]["problem"] for row in test}
    out = capsys.readouterr().out
    assert "2 terms: 40 test rows instead of 60" in out and "there are only 81 problems" in out
    assert "100 training rows repeat 41 problems" in out


def test_the_same_seed_gives_the_same_files_and_another_seed_does_not(tmp_path):
    options = ("--train-size", "50", "--test-size", "10", "--seed")
    first, again, other = (make(tmp_path / name, *options, seed) for name, seed in (("a", "1"), ("b", "1"), ("c", "2")))
    assert first == again
    assert first != other
    assert (tmp_path / "a/train.parquet").read_bytes() == (tmp_path / "b/train.parquet").read_bytes()


def test_weights_set_the_training_proportions_only(tmp_path):
    train, test = make(
        tmp_path, "--max-terms", "4", "--weights", "0", "1", "3", "--train-size", "40", "--test-size", "9"
    )
    assert sizes(train) == {"3": 10, "4": 30}
    assert sizes(test) == {"2": 3, "3": 3, "4": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "1", "2"], "--weights 1.0 2.0: give one weight"),
        (["--weights", "0", "0", "0", "0", "0"], "not all 0"),
        (["--weights", "nan", "1", "1", "1", "1"], "--weights nan"),
        (["--min-terms", "5", "--max-terms", "3"], "--min-terms 5 is above --max-terms 3"),
    ],
)
def test_bad_options_are_one_clear_error_with_exit_code_2(tmp_path, capsys, options, message):
    assert main(["--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--train-size", "0"], ["--min-terms", "1"], ["--max-number", "x"]])
def test_options_out_of_range_are_refused_by_the_parser(tmp_path, options):
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(tmp_path), *options])
    assert stopped.value.code == 2
