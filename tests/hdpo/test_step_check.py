"""The check of arithmetic lines, on made lines; and how a check of the user's is loaded and judged."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from recipe.hdpo.algorithm.arithmetic_steps import MAX_CHARS
from recipe.hdpo.step_check import arithmetic, arithmetic_to_answer, load_step_check, share_of

RIGHT = [
    "3 + 4 = 7",
    "So she has 3 + 4 = 7 apples.",
    "<<16-3-4=9>>9",
    "16 eggs - 3 eggs = 13 eggs",
    "total = 5 + 3 = 8.",
    "7 = 3 + 4",
    "- 3 + 4 = 7",
    "1) 3 + 4 = 7",
    "So far 5. 3 + 4 = 7",
    "3 - 5 = -2",
    "(2+3)*4 = 20",
    "2 + 3 * 4 = 14",
    "10 / 4 = 2.5",
    "10/3=3.33",
    "1/2 + 1/4 = 3/4",
    r"$\frac{1}{2} + \frac{1}{4} = \frac{3}{4}$",
    r"\(5 \times 3 = 15\)",
    "5 x 3 = 15",
    "5 \u00d7 3 = 15 and 15 \u00f7 5 = 3",
    "$1,200.50 + $99.50 = $1,300",
    "20% * 50 = 10",
    "0.2 * 100 = 20%",
    "3 + 4 == 7",
    "5+3=8 8+4=12",
    "-10/3 = -3.33",
    "10/4 = 2 1/2",
    "2 1/2 + 1 1/4 = 3 3/4",
    "So:3 + 4 = 7",
    "speed (3 + 4) = 7",
    # A number in a name is no side.
    "Cost of 4 pens = 4 * 2 = 8",
    "Total for 3 days = 3 * 50 = 150",
    "Day 2 sales = 10 + 5 = 15",
    "Angle 1 = 180 - 60 = 120",
    "3 * 4 = 12 and y = 12 + 1 = 13",
    "2 * 5 = 10 thus total = 10 + 3 = 13",
    "14\u00f71/2=28",
    r"2 \times 500 = 1{,}000",
    "1/3 = 33.3%",
    "4 apples + 3 oranges = 7 fruits",
]
FALSE = [
    "3 + 4 = 8",
    "10/3=3",
    "10/3=3.34",
    "16 eggs - 3 eggs = 12 eggs",
    "2 + 3 * 4 = 20",
    "7 = 3 + 5",
    "1/2 + 1/4 = 2/6",
    "-10/3 = -3.34",
    "10/4 = 2 1/3",
    "3/4 = 71.0%",
    "1/2 + 1/5 = 66.7%",
    "4 apples + 3 oranges = 8 fruits",
    "2 hours + 3 hours = 6 hours",
    "Day 2 sales = 10 + 5 = 16",
]
NO_STEP = [
    "",
    "The answer is 7.",
    "x = 5",
    "7 = 7",
    "x - 3 + 4 = 5",
    "5x + 2 = 12",
    "2x + 3 + 4 = 9",
    "3 + 4 >= 7",
    "3 + 4 != 8",
    "f(2) = 3 + x",
    "9**9 = 3",
    "1/0 = 5",
    "3 + = 3",
    "((3 + 4) = 7",
    "__import__('os') = 1 + 1 if",
    "1" * 40 + " + 1 = 3",
    # Words that begin with a number hold no other one.
    "4 * 15 = 60km",
    "5 * 0.5 = 2.5kg",
    # A part of an expression is none.
    "x^2 + 3 = 12",
    "2^3 * 5 = 40",
    "2^3 + 1 = 4",
    "a_3 + 4 = 10",
    "f(2) + 3 = 7",
    "\u221a16 + 2 = 6",
    "5 mod 3 + 1 = 3",
    "2 + 3 = 5!",
    r"4 + 4 = 8\sqrt{1}",
    # A decimal comma, as in "1,5", may be two numbers.
    "3 / 2 = 1,5",
    "1,5 * 2 = 3",
    # What is equal but for a multiple, or in another unit.
    "13 / 4 = 3 R 1",
    "13 / 4 = 3 remainder 1",
    r"5 * 3 = 1 \pmod{7}",
    "5 * 3 = 1 (mod 7)",
    "9:00 + 2 = 11:00",
    "1 hour - 15 minutes = 45 minutes",
    "2 kg - 500 g = 1.5 kg",
    "2 million / 4 = 500,000",
]


@pytest.mark.parametrize("line", RIGHT)
def test_a_right_line_is_a_valid_step(line: str) -> None:
    assert arithmetic(line) == 1.0


@pytest.mark.parametrize("line", FALSE)
def test_a_false_line_is_an_invalid_step(line: str) -> None:
    assert arithmetic(line) == 0.0


@pytest.mark.parametrize("line", NO_STEP)
def test_what_is_no_equation_of_numbers_is_no_step(line: str) -> None:
    assert arithmetic(line) is None


def test_the_share_is_over_all_steps_and_every_sign_of_a_chain_is_one() -> None:
    assert arithmetic("3 + 4 = 7\nso 7 * 2 = 15, and x = 15") == 0.5
    assert arithmetic("2 + 3 = 5 + 4 = 9") == 0.5
    assert arithmetic("2 + 7 = 5 + 4 = 9") == 1.0
    assert arithmetic("1+1=2\n1+1=3\n1+1=4\nDone.") == pytest.approx(1 / 3)


def test_long_texts_are_judged_by_their_beginning() -> None:
    long = "1+1=2\n" * (MAX_CHARS // 6) + "1+1=3\n" * 1000
    assert arithmetic(long) == 1.0
    assert arithmetic("(" * 100_000 + "=" * 100_000 + "1+" * 100_000 + "1=2") is None


@pytest.mark.parametrize(("value", "share"), [(None, None), (0, 0.0), (1, 1.0), (0.25, 0.25)])
def test_a_check_returns_a_share_or_none(value: float | None, share: float | None) -> None:
    assert share_of(lambda text: value, "t") == share


@pytest.mark.parametrize("value", [True, "0.5", 1.5, -0.1, float("nan"), float("inf")], ids=repr)
def test_anything_else_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match="has to be a share in"):
        share_of(lambda text: value, "t")  # type: ignore[arg-type, return-value]


def test_a_check_is_loaded_by_its_dotted_path_or_from_a_file(tmp_path: Path) -> None:
    assert load_step_check("recipe.hdpo.step_check.arithmetic") is arithmetic
    file = tmp_path / "mine.py"
    file.write_text("def half(text):\n    return 0.5\n")
    assert load_step_check(f"{file}:half")("anything") == 0.5
    assert importlib.util.find_spec("mine") is None
    file.write_text("1 / 0\n")
    for spec, said in ((f"{file}:half", "ZeroDivisionError"), (f"{tmp_path}/no.py:f", "FileNotFoundError")):
        with pytest.raises(ValueError, match=rf"cannot be imported: {said}"):
            load_step_check(spec)
    with pytest.raises(ValueError, match="no attribute 'none'"):
        load_step_check("recipe.hdpo.step_check.none")


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("27 + 35 = 62\n62 - 12 = 50\n#### 50", 1.0),
        # True steps that lead nowhere.
        ("4 + 15 = 19\nWe need 4 pans.\n#### 4", 0.5),
        ("4 loaves cost 2 * 10 = 20\n\\boxed{10}", 0.5),
        # Right, and then checked.
        ("62 - 12 = 50, since 50 + 12 = 62\n#### 50", 1.0),
        # The result of a false step is none.
        ("94 + 77 = 41\n#### 41", 0.0),
        ("10 / 4 = 2.5\n#### 2.50", 1.0),
        ("10 / 3 = 3.333\n#### 3.333", 1.0),
        ("3 * $1,200 = $3,600\n#### $3,600", 1.0),
        ("1/4 + 1/4 = 1/2\n#### 50%", 1.0),
        ("1/4 + 1/4 = 1/2\n\\boxed{\\frac{1}{2}}", 1.0),
        # No number to compare, or no answer: the steps alone.
        ("2 + 3 = 5\n#### five", 1.0),
        ("2 + 3 = 6\n#### x = 5", 0.0),
        ("2 + 3 = 5", 1.0),
        # No step: nothing to judge.
        ("#### 5", None),
        (r"2 * 6 = 12 so \boxed{2\sqrt{3}}", 1.0),
        (r"2 * 6 = 12 so \boxed{1, 3}", 1.0),
        (r"2 * 6 = 12 so \boxed{12\text{ km}}", 1.0),
        (r"2 * 6 = 12 so \boxed{13\text{ km}}", 0.5),
        (r"2 * 6 = 12 so \boxed{30^\circ}", 0.5),
        (r"10 / 4 = 2.5 so \boxed{2 1/2}", 1.0),
    ],
)
def test_the_answer_has_to_be_the_result_of_a_right_step(text: str, share: float | None) -> None:
    assert arithmetic_to_answer(text) == share
