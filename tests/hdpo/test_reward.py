import importlib.util
import logging

import pytest

from recipe.hdpo import math_process, reward
from recipe.hdpo.algorithm.cliff import UNSCORED
from recipe.hdpo.reward import compute_score


def score(response, truth, **options):
    result = compute_score("hdpo/test", response, truth, {"index": 0}, **options)
    assert set(result) == {"score", "acc", UNSCORED} and result["score"] == result["acc"]
    assert isinstance(result["score"], float) and isinstance(result[UNSCORED], str)
    return result["score"]


@pytest.fixture
def no_process(monkeypatch):
    def refuse(answer, truth, **options):
        raise AssertionError(f"asked math-verify about {answer!r}")

    monkeypatch.setattr(reward, "is_equal", refuse)


@pytest.fixture(scope="module", autouse=True)
def stop_the_workers_at_the_end():
    yield
    math_process.stop()


@pytest.mark.parametrize(
    ("response", "truth", "right"),
    [
        ("3+8=11\n#### 11", "11", 1.0),
        ("3+8=11\n#### 11", "12", 0.0),
        (r"so \boxed{1,800}.", "1800", 1.0),
        ("#### 18.00", "18", 1.0),
        ("#### Monday", "Monday", 1.0),
        ("#### 18", 18, 1.0),
        ("#### 18", 18.0, 1.0),
        ("#### 0.0000001", 1e-07, 1.0),
        ("#### 0", 1e-07, 0.0),
        (r"\boxed{10^{22}}", 1e22, 1.0),
        ("#### 3+8+5+2", 18, 0.0),
    ],
)
def test_text_and_plain_numbers_need_no_process(no_process, response, truth, right):
    assert score(response, truth) == right


@pytest.mark.parametrize(
    ("response", "unknown", "opened"),
    [
        (r"maybe \boxed{18}? Wait, let me check", 1.0, 0.0),
        ("maybe 18.\n</think>\n#### 18", 1.0, 1.0),
        ("#### 17\n</think>\n#### 18", 1.0, 1.0),
        ("<think>\n#### 17\n</think>\n#### 18", 1.0, 1.0),
        ("#### 18\n</think>\nDone.", 0.0, 0.0),
    ],
)
def test_a_thought_that_the_prompt_opened_has_no_answer_until_it_is_closed(no_process, response, unknown, opened):
    assert (score(response, "18"), score(response, "18", thinking_opened=True)) == (unknown, opened)


@pytest.mark.parametrize(
    ("response", "right"),
    [("#### 1" + "0" * 5000, 1.0), ("#### 1" + "0" * 4999, 0.0), (r"\boxed{10^{5000}}", 1.0), ("#### 7", 0.0)],
    ids=["written out", "one zero less", "power of ten", "another"],
)
def test_a_number_of_any_length_is_taken_as_written_out(no_process, response, right):
    assert score(response, 10**5000) == right


@pytest.mark.parametrize(
    ("response", "truth", "right"),
    [
        (r"\boxed{\frac{1}{2}}", "0.5", 1.0),
        ("#### 2", r"\sqrt{4}", 1.0),
        (r"\boxed{\sqrt{12}}", r"2\sqrt{3}", 1.0),
        (r"\boxed{(x+1)^2}", "x^2+2x+1", 1.0),
        (r"\boxed{\frac{1}{3}}", "0.5", 0.0),
        (r"\boxed{3}", "no mathematics (", 0.0),
    ],
)
def test_math_verify_decides_what_text_leaves_open(response, truth, right):
    assert score(response, truth) == right


def test_without_a_marker_a_response_is_wrong_unless_the_format_is_loose():
    response = "The answer is $\\frac{1}{2}$."
    assert score(response, "0.5") == 0.0
    assert score(response, "0.5", strict_format=False) == 1.0
    assert score("0.5 " + "x " * reward.TAIL_CHARS, "0.5", strict_format=False) == 0.0


def test_talk_around_the_answer_is_not_a_solution():
    """As a small model that was shown the solution writes it: the number is there, the solution is not."""
    response = "This is 138 rabbits eating a toy, yet you need to solve the problem without using any kind of food."
    assert score(response, "138") == 0.0
    assert score(response, "138", strict_format=False) == 1.0


def test_the_format_is_decided_without_a_process(no_process):
    assert score("The answer is 18", "18") == 0.0
    assert score("#### 18", "18") == 1.0


@pytest.mark.parametrize(
    ("response", "truth"),
    [
        ("", "18"),
        (" \n", "18"),
        ("18", ""),
        ("18", " "),
        (None, "18"),
        (18, "18"),
        (b"#### 18", "18"),
        ("#### 18", None),
        ("#### 18", ["18"]),
        ("#### 18", float("nan")),
        (r"\boxed{x}", "x+" * 600 + "1"),
        ("#### True", True),
        ("#### " + "7" * 1_000_000, "7"),
        ("\\boxed{" + "\\frac{" * 5000 + "1" + "}{2}" * 5000 + "}", "7"),
        ("\\boxed{" * 100_000, "7"),
    ],
)
def test_what_cannot_be_an_answer_scores_0_with_one_warning_at_most(response, truth, caplog):
    with caplog.at_level(logging.WARNING):
        assert score(response, truth) == 0.0
    assert len(caplog.records) <= 1
    assert all("\n" not in record.getMessage() and len(record.getMessage()) < 300 for record in caplog.records)


@pytest.mark.parametrize(
    ("response", "truth", "reason"),
    [
        (None, "18", "response is NoneType"),
        ("#### 18", ["18"], "ground truth is list"),
        ("#### 18", float("nan"), "ground truth is nan"),
        (r"\boxed{x}", "x+" * 600 + "1", "1201 characters"),
        (r"\boxed{x}", r"\frac{1", "can't be read"),
    ],
)
def test_what_no_answer_could_be_graded_with_is_unscored_and_not_wrong(response, truth, reason):
    with pytest.raises(math_process.Unscored, match=reason):
        reward.grade(response, truth)
    result = compute_score("hdpo/test", response, truth)
    assert result["score"] == 0.0 and reason in result[UNSCORED]


@pytest.mark.parametrize(("response", "truth"), [("18", "18"), ("#### 19", "18"), ("#### 18", "18"), ("", "18")])
def test_a_graded_response_names_no_reason(response, truth):
    assert compute_score("hdpo/test", response, truth)[UNSCORED] == ""


def test_an_answer_that_is_too_long_is_wrong(no_process):
    assert reward.grade("#### " + "x+" * 600 + "1", "x") is False


@pytest.mark.parametrize(
    "response",
    [
        "#### 9**9**9**9 = 18",
        "#### 9**9**9**9",
        "\\boxed{" + "(" * 490 + "1" + ")" * 490 + "}",
        "\\boxed{" + "\\{" * 190 + "1,2" + "\\}" * 190 + "}",
        "\\boxed{x = 10^{999999999} = 18}",
        "\\boxed{" * 2000 + "1" + "}, " * 2000,
        "\\boxed{9^{9^{9^{9}}}}",
        "9^{9^{9^{9}}}",
        "\\frac{" * 5000 + "1" + "}{2}" * 5000,
        "\\boxed{" + "\\frac{" * 100 + "1" + "}{2}" * 100 + "}",
        "(" * 3000 + "1",
        "7" * 1_000_000,
        "#### __import__('os').getcwd()",
        "#### \ud800\x00",
    ],
)
def test_hostile_responses_score_0_and_the_next_call_works(response, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(math_process, "TIME_LIMIT_S", 1.0)
        assert score(response, "18") == 0.0
        assert score(response, r"\{1,18\}") == 0.0
    assert score(r"\boxed{\sqrt{12}}", r"2\sqrt{3}") == 1.0


def test_an_unchecked_answer_is_one_warning_that_names_source_and_reason(monkeypatch, caplog):
    def give_up(answer, truth):
        raise math_process.Unscored("over the time limit of 5 s")

    monkeypatch.setattr(reward, "is_equal", give_up)
    with caplog.at_level(logging.WARNING):
        result = compute_score("hdpo/test", "#### 9**9**9**9", "9^9")
    assert result == {"score": 0.0, "acc": 0.0, UNSCORED: "over the time limit of 5 s"}
    (record,) = caplog.records
    assert record.getMessage() == (
        "hdpo/test: not graded, score 0.0: over the time limit of 5 s; response ends with '#### 9**9**9**9'"
    )


def test_a_broken_comparison_is_an_error_and_not_a_score(monkeypatch):
    def broken(answer, truth):
        raise RuntimeError("did not start")

    monkeypatch.setattr(reward, "is_equal", broken)
    with pytest.raises(RuntimeError, match="did not start"):
        score("#### 1/2", r"\sqrt{2}/2")


def test_it_works_when_loaded_from_its_path_under_another_name_as_verl_does():
    spec = importlib.util.spec_from_file_location("custom_module_1", reward.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.compute_score(
        data_source="a",
        solution_str=r"\boxed{\frac{1}{2}}",
        ground_truth="0.5",
        extra_info={},
        reward_router_address="x",
    )
    assert result == {"score": 1.0, "acc": 1.0, UNSCORED: ""}
