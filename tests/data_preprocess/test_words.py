import itertools
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from data_preprocess import word_problems, words
from data_preprocess.word_families import FAMILIES
from data_preprocess.word_problems import PARTS, Problem, problems
from data_preprocess.words import main
from recipe.hdpo.data.rows import DataError
from recipe.hdpo.reward import grade
from recipe.hdpo.step_check import arithmetic

SIZES = ["--train-size", "60", "--tune-size", "30", "--test-size", "30", "--heldout-size", "12"]
DIFFICULTIES = [(family, size) for family, kind in FAMILIES.items() for size in kind.sizes]
SPLITS = ("train", "tune", "test", "heldout")


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    out = tmp_path_factory.mktemp("words")
    assert main(["--out", str(out), *SIZES]) == 0
    return {split: pq.read_table(out / f"{split}.parquet").to_pylist() for split in SPLITS}


def from_metadata(family, metadata):
    about = FAMILIES[family].read(metadata)
    return Problem(family, "any", "", about, FAMILIES[family].solve(about))


# (family, what its generator says of an entry, steps, reference), worked by hand
BY_HAND = [
    (
        "chain_sum",
        {"expression": "27 + 35 - 70"},
        "27+35=62\n62-70=-8\n#### -8",
        "Start with 27. Add 35, which makes 62. Take away 70, which leaves -8.",
    ),
    (
        "leg_counting",
        {"animals": {"cat": 3, "duck": 1}},
        "cat: 3*4=12\nduck: 1*2=2\n12+2=14\n#### 14",
        "Each cat has 4 legs, so 3 have 12. Each duck has 2 legs, so 1 has 2. With the 12 before this makes 14.",
    ),
    (
        "new_animals",
        {"animals": {"cat": 3, "sea slug": 9, "ant": 1}},
        "cat: 3*4=12\nsea slug: 9*0=0\n12+0=12\nant: 1*6=6\n12+6=18\n#### 18",
        "Each cat has 4 legs, so 3 have 12. Each sea slug has 0 legs, so 9 have 0. With the 12 before this makes 12. "
        "Each ant has 6 legs, so 1 has 6. With the 12 before this makes 18.",
    ),
    (
        "simple_equations",
        {"equation": "5*b + 6 = 26", "variable": "b"},
        "26-6=20\n20/5=4\n#### 4",
        "Take 6 from 26, which is 20. Now 5 times b is 20, so b must be 4.",
    ),
    (
        "simple_equations",
        {"equation": "5 - 8*e = -51", "variable": "e"},
        "5+51=56\n56/8=7\n#### 7",
        "To 5 give back 51, which is 56. Now 8 times e is 56, so e must be 7.",
    ),
    (
        "simple_equations",
        {"equation": "h - 9 = -2", "variable": "h"},
        "-2+9=7\n#### 7",
        "To -2 give back 9, which is 7. That is h itself.",
    ),
    (
        "simple_equations",
        {"equation": "27*o = 216", "variable": "o"},
        "216/27=8\n#### 8",
        "Now 27 times o is 216, so o must be 8.",
    ),
    (
        "letter_counting",
        {"target_letter": "n", "span": ["Names", "and", "seventeen"]},
        "Names: 1\nand: 1\nseventeen: 2\n1+1+2=4\n#### 4",
        "The letter n is found 1 in Names, 1 in and, 2 in seventeen. Counted up, this gives 4.",
    ),
]


@pytest.mark.parametrize(("family", "metadata", "steps", "reference"), BY_HAND)
def test_steps_and_reference_are_those_worked_by_hand(family, metadata, steps, reference):
    problem = from_metadata(family, metadata)
    assert problem.solution() == steps
    assert problem.reference() == reference


def test_an_animal_with_an_unusual_number_of_legs_makes_a_problem_one_of_new_animals():
    herds = [{"animals": animals} for animals in ({"cat": 1, "bee": 2}, {"crab": 1}, {"cat": 1, "crab": 2})]
    assert [FAMILIES["leg_counting"].read(herd) is None for herd in herds] == [False, True, True]
    assert [FAMILIES["new_animals"].read(herd) is None for herd in herds] == [True, False, False]


def test_an_unknown_that_is_given_is_no_problem():
    assert FAMILIES["simple_equations"].read({"equation": "e = 3", "variable": "e"}) is None


@pytest.mark.parametrize(("family", "size"), DIFFICULTIES)
def test_every_solution_has_valid_arithmetic_and_the_generators_answer_and_its_reference_copies_none_of_it(
    family, size
):
    for problem in itertools.islice(problems(family, size, 5), 60):
        solution, reference = problem.solution(), problem.reference()
        assert arithmetic(solution) == 1.0
        assert grade(solution, problem.answer)
        assert not any(line in reference for line in solution.split("\n"))
        assert str(problem.results[-1]) in reference and "\n" not in reference


def test_other_results_stand_in_both_texts_in_the_place_of_the_true_ones():
    problem = from_metadata("chain_sum", {"expression": "1 + 2 + 3"})
    assert problem.solution((7, 8)) == "1+2=7\n7+3=8\n#### 8"
    assert problem.reference((7, 8)) == "Start with 1. Add 2, which makes 7. Add 3, which makes 8."


def test_an_answer_that_the_steps_do_not_lead_to_is_an_error(monkeypatch):
    wrong = replace(FAMILIES["chain_sum"], solve=lambda about: (10**6,))
    monkeypatch.setitem(FAMILIES, "chain_sum", wrong)
    with pytest.raises(ValueError, match="chain_sum: 1000000, and the generator says -12: State the final answer"):
        next(problems("chain_sum", "3x1", 0))


def test_no_problem_is_in_two_splits_nor_twice_in_one(splits):
    texts = [row["extra_info"]["problem"] for rows in splits.values() for row in rows]
    assert len(texts) == 60 + 30 + 30 + 12 == len(set(texts))


def test_each_split_holds_problems_of_its_own_part_alone():
    counts = {part: {"chain_sum_3x1": 40, "simple_equations_10": 20} for part in ("train", "tune", "test")}
    drawn = words.draw(counts, seed=3)
    for part, found in drawn.items():
        assert {problem.part for problem in found} == {part}
        assert len({problem.key for problem in found}) == len(found) == 60


def test_the_letter_of_the_unknown_makes_no_other_problem():
    same = [from_metadata("simple_equations", {"equation": f"5*{v} + 6 = 26", "variable": v}) for v in "bx"]
    other = from_metadata("simple_equations", {"equation": "5*b + 7 = 27", "variable": "b"})
    assert same[0].key == same[1].key != other.key


def test_the_parts_have_the_shares_that_they_should():
    parts = [problem.part for problem in itertools.islice(problems("chain_sum", "5x2", 0), 4000)]
    for part, share in PARTS.items():
        # Five standard deviations of a share of 4,000 are at most 4 %.
        assert abs(parts.count(part) / 4000 - share / 100) < 0.04


def test_the_held_out_family_is_in_its_own_split_alone(splits):
    families = {
        split: {row["extra_info"]["difficulty"].rpartition("_")[0] for row in rows} for split, rows in splits.items()
    }
    assert families.pop("heldout") == {"letter_counting"}
    assert all(seen == {"chain_sum", "leg_counting", "new_animals", "simple_equations"} for seen in families.values())


def test_rows_hold_the_problem_alone_as_prompt_and_the_reference_beside_the_solution(splits):
    for rows in splits.values():
        for row in rows:
            info = row["extra_info"]
            assert row["prompt"] == [{"role": "user", "content": info["problem"]}]
            assert grade(info["solution"], row["reward_model"]["ground_truth"])
            assert "=" not in info["reference"] and info["reference"].endswith(".")


def test_the_same_seed_gives_the_same_rows_and_another_one_others(splits, tmp_path):
    for seed, same in (("0", True), ("1", False)):
        assert main(["--out", str(tmp_path), *SIZES, "--seed", seed]) == 0
        assert (pq.read_table(tmp_path / "test.parquet").to_pylist() == splits["test"]) == same


def test_more_problems_than_there_are_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(words, "MAX_DRAWS_PER_PROBLEM", 2)
    with pytest.raises(DataError, match=r"chain_sum_3x1: \d+ of test were not found in 100 draws: ask for fewer rows"):
        words.draw({"test": {"chain_sum_3x1": 50}}, seed=0)


def test_the_shares_of_the_parts_are_per_cent():
    assert sum(word_problems.PARTS.values()) == 100
