"""What of a data row is a text that a privileged prompt can show, and what is said of the rest."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pytest

from recipe.hdpo.algorithm.message_template import compile_template
from recipe.hdpo.algorithm.privileged_prompt import NoPrivilegedText, PrivilegedPromptBuilder, text_at, why_no_text

NO_TEXTS: list[tuple[Any, str]] = [
    (None, "nothing"),
    ("", "a blank text"),
    (" \t\n\u3000", "a blank text"),
    ("\u200b\u200c\u200d\u2060\ufeff", "a blank text"),
    ("\x00\x00", "a blank text"),
    ("\u2800\u3164\u115f\ufe0f", "a blank text"),
    ([], "an empty list"),
    (np.array([]), "an empty list"),
    (["step 1", "step 2"], "a list of texts"),
    (np.array(["step 1", "step 2"], dtype=object), "a list of texts"),
    (["step 1", None], "a list"),
    ([1, 2], "a list"),
    ([["a"], ["b"]], "a list"),
    ({"text": "S"}, "a dict"),
    (math.nan, "nan"),
    (np.float64("nan"), "nan"),
    (math.inf, "inf"),
    (True, "a bool"),
    (b"1+1=2", "a bytes"),
    (datetime.date(2026, 1, 1), "a date"),
]


@pytest.mark.parametrize(("value", "said"), NO_TEXTS, ids=lambda v: repr(v)[:30])
def test_what_is_no_text_counts_as_missing_and_is_named(value: Any, said: str) -> None:
    assert text_at({"a": {"b": value}}, "a.b") is None
    assert why_no_text({"a": {"b": value}}, "a.b") == said


@pytest.mark.parametrize(
    "value", ["S", " S ", "\u200bS\x00", "\u00e9", "解", "👍", "18", 18, 0, -0.5, np.int64(7), 10**50, 10**400]
)
def test_texts_and_finite_numbers_are_shown_as_they_are_written(value: Any) -> None:
    assert text_at({"a": {"b": value}}, "a.b") == str(value)


def test_a_list_of_texts_is_joined_only_where_that_is_said() -> None:
    for value in (["1+1=2", "so 2"], np.array(["1+1=2", "so 2"], dtype=object)):
        assert text_at({"a": value}, "a") is None
        assert text_at({"a": value}, "a", join=True) == "1+1=2\nso 2"
    for value in ([], ["", "\u200b"], ["a", 1], ["a", None], [["a"]], {"a": "b"}, math.nan):
        assert text_at({"a": value}, "a", join=True) is None
    assert text_at({"a": "S"}, "a", join=True) == "S"


def _builder(template: str) -> PrivilegedPromptBuilder:
    compiled = compile_template(template, "user")
    return PrivilegedPromptBuilder(compiled, "user", "solution", "extra_info.solution", "reward_model.ground_truth")


def test_an_answer_that_is_no_text_is_missing_where_the_template_shows_it_and_else_does_not_matter() -> None:
    messages = [{"role": "user", "content": "P"}]
    row = {"extra_info": {"solution": "S"}, "reward_model": {"ground_truth": ["18"]}}
    with pytest.raises(NoPrivilegedText, match=r"reward_model\.ground_truth, where a list of texts stands"):
        _builder("{{ problem }} {{ solution }} {{ answer }}").build(messages, row)
    [message] = _builder("{{ problem }} {{ solution }}").build(messages, row)
    assert message["content"] == "P S"
