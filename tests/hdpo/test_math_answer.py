import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.hdpo.answers.compare import same_answer
from recipe.hdpo.answers.text import normalise
from recipe.hdpo.math_answer import final_answer, joint_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("3+8=11\n#### 11", "11"),
        ("so 12 #### 12\n", "12"),
        ("#### 1\n#### 2", "2"),
        ("####7\r\nmore", "7"),
        ("#### 5 ####", "5"),
        ("#### 5\n####", "5"),
        (r"so \boxed{18}.", "18"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox {3}", "3"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{ \{1,2\} }", r"\{1,2\}"),
        (r"} \boxed{3}", "3"),
        (r"\boxed{5} #### 6 #### 7", "7"),
        (r"\boxed{5} {", "5"),
        (r"#### \boxed{4}", "4"),
    ],
)
def test_the_text_after_the_last_marker_is_the_answer(response, answer):
    assert final_answer(response) == answer


def test_the_marker_that_stands_last_counts_so_a_heading_is_no_answer():
    assert final_answer("#### Step 2: divide\nso \\boxed{9}") == "9"
    assert final_answer("\\boxed{9}\n#### 10") == "10"


@pytest.mark.parametrize(
    "response", ["", "18", "# 18", "### 18", "####", "####  \n18", r"\boxed{}", r"\boxed{3", "boxed{3}"]
)
def test_no_marker_with_a_text_is_no_answer(response):
    assert final_answer(response) is None


@pytest.mark.parametrize(
    "response",
    [
        r"\boxed{5}. Actually no, it is \boxed{7",
        r"\boxed{5}. Actually no, it is \boxed{}",
        r"#### 5, so \boxed{",
        "<think>\\boxed{5}</think> It is 6.",
        "<think> #### 5",
        "so \\boxed{5}\n</think>\nDone.",
        "[THINK]\\boxed{5}[/THINK]",
    ],
)
def test_an_open_box_and_what_is_only_thought_are_no_answer(response):
    assert final_answer(response) is None


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("\\boxed{5}\n#### Verification\n2+3=5", "5"),
        ("\\boxed{5}\n#### **Step 2:** check", "5"),
        ("\\boxed{5}\n#### 1. Check", "5"),
        ("\\boxed{5}\n#### Answer: 6", "Answer: 6"),
        ("\\boxed{5}\n#### x = 6", "x = 6"),
        ("\\boxed{5}\n#### pi/2", "pi/2"),
        ("#### 5\n#### Explanation", "5"),
        ("\\boxed{5}\n#### A. Notes", "5"),
        ("#### Solution\n#### Monday", "Monday"),
        ("<think>\\boxed{6}</think>So \\boxed{5}.", "5"),
        ("a</think>\n#### 5 <think> \\boxed{6}", "5"),
    ],
)
def test_a_heading_is_no_answer_where_another_marker_has_one(response, answer):
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"\boxed{45} and \boxed{2}", "45, 2"),
        (r"$k = \boxed{45}$ and $n_1 = \boxed{2}$.", "k =45, n_1 =2"),
        (r"\boxed{1}, \boxed{2}, \boxed{3}", "1, 2, 3"),
        (r"First \boxed{9}. Then \boxed{1} or \boxed{2}", "1, 2"),
        (r"\boxed{5}. Actually no, it is \boxed{7}", None),
        (r"\boxed{5}, not \boxed{7}", None),
        (r"\[\boxed{5}\] as well as \[\boxed{7}\]", "5, 7"),
        (r"\boxed{5}, \boxed{7", None),
        (r"\boxed{5}, \boxed{7} #### 8", None),
        (r"\boxed{5}", None),
        (r"\boxed{\boxed{5}}", None),
    ],
)
def test_boxes_with_little_between_them_are_one_list(response, answer):
    assert joint_answer(response) == answer


@given(st.recursive(st.text("ab1 ", min_size=1), lambda inner: inner.map(lambda text: "{" + text + "}")))
def test_balanced_content_of_a_box_comes_back_whole(content):
    assert final_answer(f"x {{ \\boxed{{{content}}} y") == (content.strip() or None)


@given(st.text(r"#\{}boxed 1\n", max_size=60))
def test_any_text_has_an_answer_that_stands_in_it_or_none(text):
    answer = final_answer(text)
    assert answer is None or (answer in text and answer == answer.strip() != "")


@pytest.mark.parametrize("text", ["####\n" * 200_000, "\\boxed{" * 150_000, "#" * 1_000_000, "#### " * 200_000])
def test_a_megabyte_of_markers_without_text_is_no_answer(text):
    assert final_answer(text) is None


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        (" 18. ", "18"),
        ("$18$.", "18"),
        (r"\$18", "18"),
        ("{18}", "18"),
        ("{a}+{b}", "{a}+{b}"),
        (r"\{1\}", r"\{1\}"),
        ("1,234,567.5", "1234567.5"),
        ("1{,}234", "1234"),
        (r"12,\!345", "12345"),
        ("(1,234)", "(1,234)"),
        ("1,23", "1,23"),
        (r"50\%", "50%"),
        (r"\(x+1\)", "x+1"),
    ],
)
def test_normalising_drops_what_does_not_change_the_answer(answer, normal):
    assert normalise(answer) == normal


@pytest.mark.parametrize(
    ("answer", "truth", "same"),
    [
        ("18", "18", True),
        ("$1,800$", "1800", True),
        ("18.0", "18", True),
        ("+5", "5", True),
        ("-0", "0", True),
        ("18", "19", False),
        ("-18", "18", False),
        ("9" * 50, "9" * 49 + "8", False),
        ("18", "", False),
        ("", "", False),
        ("0.5", r"\frac{1}{2}", True),
        ("0.3333333", "0.333333", False),
        ("9**9**9**9", "18", False),
        ("9" * 101, "18", False),
        ("1" + "0" * 5000, "10^{5000}", True),
        ("9" * 20_000, "18", None),
        ("١٨", "18", True),
        ("1e3", "1000", True),
        ("Monday", "Monday", True),
        ("monday", "Monday", True),
        ("3+8+5+2 = 18", "18", None),
        (r"\sqrt{12}", r"2\sqrt{3}", None),
    ],
)
def test_text_decides_words_and_plain_numbers_and_leaves_formulas_open(answer, truth, same):
    assert same_answer(answer, truth) is same


@given(st.integers(), st.integers())
def test_two_whole_numbers_are_the_same_exactly_when_equal(left, right):
    assert same_answer(f"{left:,}", str(right)) is (left == right)


@given(st.text(max_size=20))
def test_any_text_is_the_same_as_itself_unless_it_is_empty(text):
    assert same_answer(text, text) is bool(normalise(text))
