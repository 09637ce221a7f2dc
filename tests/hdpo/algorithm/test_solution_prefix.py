"""The first part of a solution: where it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.hdpo.algorithm.privileged_prompt import NoPrivilegedText
from recipe.hdpo.algorithm.solution_prefix import prefix_share, solution_prefix
from tests.hdpo.algorithm.test_privileged_prompt import _builder, _row

SUM = "3+8=11\n11+5=16\n16+2=18\n#### 18"  # 30 characters; its lines end at 6, 14, 22


@pytest.mark.parametrize(
    ("text", "share", "found"),
    [
        (SUM, 0.5, "3+8=11\n11+5=16"),
        (SUM, 14 / 30, "3+8=11\n11+5=16"),
        (SUM, 13.9 / 30, "3+8=11"),
        (SUM, 0.01, "3+8=11"),
        (SUM, 0.99, "3+8=11\n11+5=16\n16+2=18"),
        ("A long first line\nb", 0.5, "A long first line"),
        ("a\n\n  \nb\nc", 0.6, "a"),
        ("  \na\nb \n", 0.5, "a"),
        ("He has 3.5 pens. He buys 2! Now 5.5.", 0.5, "He has 3.5 pens."),
        ("He has 3.5 pens. He buys 2! Now 5.5.", 0.8, "He has 3.5 pens. He buys 2!"),
        ("先算三加四。得七。答案是七。", 0.7, "先算三加四。得七。"),
        ("One. Two.\nThree.", 0.3, "One. Two."),
        ("3+4=7", 0.5, None),
        ("Only one sentence.", 0.5, None),
        ("\n3+4=7\n", 0.9, None),
        ("", 0.5, None),
    ],
)
def test_as_many_pieces_as_fit_at_least_one_and_never_all(text: str, share: float, found: str | None) -> None:
    assert solution_prefix(text, share) == found


@given(st.text(alphabet="ab.\n !。", max_size=40), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_prefix_is_a_proper_part_that_grows_with_the_share(text: str, low: float, high: float) -> None:
    low, high = sorted((low, high))
    short, long = solution_prefix(text, low), solution_prefix(text, high)
    assert (short is None) == (long is None)
    if short is not None and long is not None:
        assert long.startswith(short) and text.strip().startswith(long)
        assert len(short) > 0 and len(long) < len(text.strip())


def test_the_source_names_its_share() -> None:
    assert prefix_share("prefix:0.25") == 0.25
    assert prefix_share("solution") is None and prefix_share("prefixes") is None
    for wrong in ("prefix", "prefix:", "prefix:half", "prefix:0", "prefix:1", "prefix:-1", "prefix:nan"):
        with pytest.raises(ValueError, match="strictly between 0 and 1"):
            prefix_share(wrong)


def test_a_prompt_with_a_prefix_shows_no_more_of_the_solution() -> None:
    [message] = _builder(source="prefix:0.5").build([{"role": "user", "content": "P"}], _row(SUM, "18"))
    assert "11+5=16" in message["content"] and "16+2" not in message["content"] and "18" not in message["content"]


def test_a_solution_of_one_piece_has_no_prefix_and_that_is_said() -> None:
    with pytest.raises(NoPrivilegedText, match=r"extra_info\.solution, where a text of one line and one sentence"):
        _builder(source="prefix:0.5").build([{"role": "user", "content": "P"}], _row("3+4=7"))
