"""The marks in a privileged prompt, and the texts to read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.hdpo.algorithm.prompt_marks import marked
from recipe.hdpo.preflight.page import MAX_CHARS, _short

PLAIN = "<user>1+1=?<end><assistant>"


@pytest.mark.parametrize(
    ("plain", "privileged", "shown", "parts"),
    [
        (
            PLAIN,
            "<user>1+1=?\nReference:\n1+1=2\nGo.<end><assistant>",
            "1+1=2",
            [("", "<user>1+1=?"), ("added", "\nReference:\n"), ("shown", "1+1=2"), ("added", "\nGo.")],
        ),
        (PLAIN, "<system>1+1=2<end>" + PLAIN, "1+1=2", [("", "<"), ("added", "system>"), ("shown", "1+1=2")]),
        # The template changed the text, so only what is new is marked.
        (PLAIN, "<user>1+1=? TWO<end><assistant>", "two", [("", "<user>1+1=?"), ("added", " TWO")]),
        # The text begins as the plain prompt goes on.
        ("ab<end>", "ab<eight><end>", "<eight>", [("", "ab"), ("shown", "<eight>"), ("", "<end>")]),
        ("a", "a", "", [("", "a")]),
    ],
)
def test_what_the_plain_prompt_has_not_is_marked_and_the_shown_text_within(
    plain: str, privileged: str, shown: str, parts: list[tuple[str, str]]
) -> None:
    found = marked(plain, privileged, shown)
    assert found[: len(parts)] == parts and "".join(text for _, text in found) == privileged


@given(st.text("ab<>", max_size=12), st.text("ab<>", max_size=12), st.text("ab<>", max_size=6))
def test_the_parts_are_the_prompt_whatever_it_is(plain: str, privileged: str, shown: str) -> None:
    assert "".join(text for _, text in marked(plain, privileged, shown)) == privileged


def test_a_long_text_is_cut_in_the_middle_and_says_so() -> None:
    text = _short("a" * MAX_CHARS + "b" * 10)
    assert len(text) < MAX_CHARS + 50 and text.endswith("b") and "[... 10 characters ...]" in text
    assert _short("x" * MAX_CHARS) == "x" * MAX_CHARS
