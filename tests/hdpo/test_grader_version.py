"""A change of a grade needs another GRADER_VERSION: results name it, and must mean the same in a year."""

# ruff: noqa: RUF001 - signs of other scripts.

import pytest

from recipe.hdpo import math_process
from recipe.hdpo.reward import GRADER_VERSION, compute_score

# Response, ground truth, and whether a marker is required.
ANSWERS = [
    ("3+8=11\n#### 11", "11", True),
    ("3+8=11\n#### 12", "11", True),
    ("#### 11 #### 12", "12", True),
    ("#### 12\nno, 11", "12", True),
    (r"\boxed{11} and then \boxed{12}", "12", True),
    (r"#### 11 and \boxed{12}", "11", True),
    (r"\boxed{12} #### 11", "11", True),
    (r"\boxed{1{,}800}", "1800", True),
    (r"\boxed{\$1,800.}", "1800.0", True),
    (r"\fbox{7}", "7", True),
    (r"\boxed{\boxed{7}}", "7", True),
    (r"\boxed{7", "7", True),
    ("#### ", "7", True),
    ("", "7", True),
    ("####7", "7", True),
    ("#### 7 # # ", "7", True),
    ("#### 0.5", "1/2", True),
    (r"\boxed{\frac{1}{2}}", "0.5", True),
    (r"\boxed{\frac{1}{2}}", "0.51", True),
    (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", True),
    (r"\boxed{(x+1)^2}", "x^2+2x+1", True),
    (r"\boxed{x=3}", "3", True),
    (r"\boxed{50\%}", "50", True),
    (r"\boxed{(1, 2)}", "(1,2)", True),
    (r"\boxed{\{1, 2\}}", r"\{2, 1\}", True),
    ("#### Monday", "Monday", True),
    ("#### monday", "Monday", True),
    ("#### 007", "7", True),
    ("#### -3", "3", True),
    ("#### " + "9" * 1001, "9", True),
    ("the answer is 7", "7", True),
    ("the answer is 7", "7", False),
    ("the answer is 7 or 8", "9", False),
    ("#### 3+4", "7", True),
    ("#### 3+4 = 7", "7", True),
    ("#### 3+5 = 7", "7", True),
    ("#### 7 eggs", "7", True),
    ("#### **7**", "7", True),
    ("#### Answer: 7", "7", True),
    ("\\boxed{7}\n#### Verification", "7", True),
    (r"\boxed{7}, no, \boxed{8", "7", True),
    (r"<think>\boxed{7}</think>", "7", True),
    (r"\boxed{7} and \boxed{8}", "8, 7", True),
    (r"\boxed{7} and \boxed{8}", "7", True),
    (r"\boxed{7, 7}", "7", True),
    (r"\boxed{(7, 8)}", r"\{7, 8\}", True),
    (r"\boxed{7}", r"7\%", True),
    (r"\boxed{0.07}", r"7\%", True),
    (r"\boxed{21_3}", "21_4", True),
    (r"\boxed{10^{-19}}", "10^{-20}", True),
    ("#### 7 cm", "7 m", True),
    ("#### saw", "was", True),
    ("#### pi/2", r"\frac{\pi}{2}", True),
    ("#### 1 1/2", "1.5", True),
    (r"\boxed{1\,000}", "1000", True),
    (r"\boxed{\textbf{(B)}\ 12}", "B", True),
    (r"\boxed{\textbf{(B)}\ 12}", "13", True),
    ("#### 4:30 PM", "4:30 p.m.", True),
    ("#### 4:15 PM", "4:30 p.m.", True),
    (r"\boxed{16}", "16t", True),
    (r"\boxed{6 - 5 i}", "6 - 5i", True),
    ("#### 上海", "北京", True),
    ("#### 12 años", "12", True),
    ("#### 2023-10-05", "2023-05-10", True),
    ("#### 6.02×10²³", r"6.02\times10^{23}", True),
    (r"\boxed{25\pi cm^2}", r"25\pi", True),
    ("#### 50 kWh", "50", True),
    ("#### 18 €", "18", True),
    ("#### B: Paris", "B", True),
]
# One digit for each answer above. With a new version, its grades take the place of the old ones.
GRADES = {4: "101110111110001111011111111100010010111100100011000011110100101011111"}


@pytest.fixture(scope="module", autouse=True)
def stop_the_workers_at_the_end():
    yield
    math_process.stop()


def test_the_grades_are_those_of_the_version() -> None:
    scores = (compute_score("d", response, truth, strict_format=strict) for response, truth, strict in ANSWERS)
    grades = "".join(str(int(score["score"])) for score in scores)
    assert grades == GRADES[GRADER_VERSION], "a grade has changed: raise GRADER_VERSION, and pin its grades here"
