"""Plain text tables."""

from __future__ import annotations

from recipe.hdpo.evaluation.tables import number, text_table


def test_columns_line_up_to_the_widest_cell():
    table = text_table(["metric", "a"], [["x", "0.5"], ["longer name", "10.25"]])
    assert table.splitlines() == [
        "metric           a",
        "-----------  -----",
        "x              0.5",
        "longer name  10.25",
    ]


def test_numbers_have_the_digits_of_their_metric_and_a_sign_where_asked():
    interval = {"estimate": 0.25, "low": 0.125, "high": 0.5}
    assert number(interval, "pass@1") == "0.250 [0.125, 0.500]"
    assert number(interval, "pass@1", signed=True) == "+0.250 [+0.125, +0.500]"
    assert number({"estimate": 12.34, "low": 10.0, "high": 15.0}, "mean_tokens") == "12.3 [10.0, 15.0]"


def test_an_unknown_interval_shows_as_a_question_mark():
    assert number({"estimate": 0.25, "low": None, "high": None}, "pass@1") == "0.250 [?]"
