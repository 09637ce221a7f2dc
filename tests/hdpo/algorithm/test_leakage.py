"""Signs of copying: each on texts made for it, with its near misses."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.hdpo.algorithm.leakage import excess, leak_signs, longest_shared_run, read_phrases, reference_pattern

PATTERN = reference_pattern()

SPEAKS = [
    "As the solution says, 3 + 4 = 7.",
    "The reference solution adds them.",
    "the given\nsolution  is right",
    "According to the solution, it is 7.",
    "As shown in the reference solution, we add.",
    "This is THE PROVIDED ANSWER.",
    "The solution provided above adds 3 and 4.",
    "I do not need the reference.",
    "The solution above is right.",
    "根据参考答案可知, 答案是七。",
    "所以标准答案为7",
    "模範解答では7です",
    "주어진 해답을 보면 7",
    "Laut der Musterlösung ist es 7.",
    "Selon la solution, c'est 7.",
    "Según la solución, es 7.",
    "De acordo com a solução, é 7.",
    "Secondo la soluzione è 7.",
    "Согласно решению, это 7.",
]
SILENT = [
    "The solution of the equation is x = 3.",
    "So the solution is 7.",
    "The solution does not exist.",
    "In the reference frame of the train it moves at 3 m/s.",
    "We remove salt from the solution and weigh it.",
    "The answer is 7. #### 7",
    "Given a solution x, we find y.",
    "Following the solution set of both, we find 3.",
    "preferences of the referees",
    "这个方程的解是3, 答案是7。",
    "Die Lösung der Gleichung ist 3.",
    "La solución es 7.",
    "",
    # Sentences of mathematics.
    "There is a unique solution provided that a is not 0.",
    "The general solution given by y = C e^x holds.",
    "根据解析式, 函数在一处为零, 给定的解析式成立。",
    "例如答案是3; 假如答案为7",
    "Wir suchen nach der Lösung der Gleichung.",
    "Данное решение не подходит.",
]


@pytest.mark.parametrize("text", SPEAKS)
def test_texts_that_speak_of_a_reference_are_found(text: str) -> None:
    assert PATTERN.search(text)


@pytest.mark.parametrize("text", SILENT)
def test_texts_that_only_solve_are_not(text: str) -> None:
    assert not PATTERN.search(text)


def test_users_phrases_come_on_top_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "phrases.txt"
    file.write_text("# ours\n\nthe cheat sheet\n  teacher'?s notes \n")
    phrases = read_phrases(file)
    assert phrases == ["the cheat sheet", "teacher'?s notes"]
    more = reference_pattern(phrases)
    assert more.search("See The  Cheat\nSheet!") and more.search("my teachers notes") and more.search(SPEAKS[0])
    assert not more.search("the cheat sheets") and not PATTERN.search("the cheat sheet")


@pytest.mark.parametrize("phrase", ["the *cheat +sheet", "the {1,2}cheat {1}sheet", re.escape("the cheat sheet")])
def test_a_phrase_that_is_accepted_is_one_of_the_whole_pattern_and_finds_what_it_says(phrase: str) -> None:
    assert reference_pattern([phrase]).search("see the cheat sheet")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("(open", "no regular expression"),
        ("x*", "found in an empty text"),
        ("(?i)the cheat sheet", "no regular expression that can be one of several"),
    ],
)
def test_a_line_that_is_no_phrase_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "phrases.txt"
    file.write_text(f"good\n{line}\n")
    with pytest.raises(ValueError, match=rf"phrases\.txt, line 2: .*{said}"):
        read_phrases(file)
    with pytest.raises(ValueError, match="cannot be read"):
        read_phrases(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("response", "shown", "run"),
    [("abcd", "xbcy", 2), ("abab", "babab", 4), ("abc", "abc", 3), ("abc", "xyz", 0), ("", "a", 0), ("a", "", 0)],
)
def test_the_longest_shared_run_by_hand(response: str, shown: str, run: int) -> None:
    assert longest_shared_run(response, shown) == run


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30))
def test_the_longest_shared_run_is_difflibs(response: list[int], shown: list[int]) -> None:
    matcher = difflib.SequenceMatcher(None, response, shown, autojunk=False)
    assert longest_shared_run(response, shown) == matcher.find_longest_match().size


def signs(text: str, shown: str, worked: str | None):
    return leak_signs(text, text.split(), shown.split(), worked and worked.split(), PATTERN)


def test_a_copy_an_answer_without_work_and_a_solution_of_its_own() -> None:
    worked = "3 + 8 = 11 then 11 + 5 = 16"
    copy = signs("so 3 + 8 = 11 then 11 + 5 = 16", worked, worked)
    assert (copy.run, copy.run_share) == (11, 11 / 12) and copy.copies and not copy.workless and not copy.speaks
    bare = signs("it is 16", worked, worked)
    assert (bare.run, bare.length_share) == (1, 3 / 11) and bare.workless and not bare.copies
    own = signs("5 + 3 gives 8 and 8 + 8 gives 16", worked, worked)
    assert (own.run, own.length_share) == (2, 1.0) and not (own.copies or own.workless or own.speaks)
    said = signs("as the solution says it is 16", worked, None)
    assert said.phrase == "as the solution says"[3:] and said.length_share is None and not said.workless


def test_at_the_thresholds_a_half_copied_is_a_copy_and_a_half_as_long_has_work() -> None:
    half = signs("a b x y", "a b", "1 2 3 4 5 6 7 8")
    assert (half.run_share, half.length_share) == (0.5, 0.5) and half.copies and not half.workless


def test_an_empty_response_copies_nothing() -> None:
    empty = signs("", "a b", "a b")
    assert (empty.run, empty.run_share, empty.length_share) == (0, 0.0, 0.0) and not empty.copies


def test_only_what_plain_rollouts_do_not_show_is_excess() -> None:
    assert excess(0.5, 0.2) == 0.3 and excess(0.2, 0.5) == 0.0 and excess(0.4, None) == 0.4
