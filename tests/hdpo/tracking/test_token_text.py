"""Texts of single tokens are their parts of the whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recipe.hdpo.tracking.token_text import short, token_texts


def bytes_decode(ids: list[int]) -> str:
    """One byte a token, as byte-level tokenizers have it."""
    return bytes(ids).decode("utf-8", errors="replace")


def words_decode(ids: list[int]) -> str:
    """Tokens are words with a space before them, which the first one loses."""
    return "".join(f" {'abc'[i]}" for i in ids)[1:]


@given(st.text(max_size=20))
def test_joined_they_are_the_text_and_a_characters_bytes_are_one_token_of_several(text: str) -> None:
    raw = text.encode(errors="ignore")
    texts = token_texts([*raw], bytes_decode)
    assert "".join(texts) == raw.decode() and len(texts) == len(raw)


def test_a_character_stands_at_its_last_byte() -> None:
    assert token_texts([*"aé€".encode()], bytes_decode) == ["a", "", "é", "", "", "€"]


def test_a_token_keeps_the_space_before_it() -> None:
    assert token_texts([0, 1, 2], words_decode) == ["a", " b", " c"]


def test_bytes_that_never_become_a_character_are_told_too() -> None:
    texts = token_texts([0x80] * 40 + [*b"a"], bytes_decode)
    assert len(texts) == 41 and "".join(texts).endswith("a") and "\ufffd" in "".join(texts)


def test_a_long_text_loses_its_middle_and_says_how_much() -> None:
    assert short("a" * 10, 10) == "a" * 10
    assert short("a" * 12 + "b" * 3, 10) == "aaaaa\n[... 5 characters ...]\naabbb"
