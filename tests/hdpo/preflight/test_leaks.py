"""Signs of copying over problems, and the sign that matters."""

from __future__ import annotations

import pytest

from recipe.hdpo.algorithm.leakage import reference_pattern
from recipe.hdpo.preflight.leaks import SignReader, largest_excess, leak_figures
from tests.hdpo.preflight.made import rollouts

WORDS: dict[str, int] = {}
SHOWN = "three and four are seven"


def tokens(text: str) -> list[int]:
    return [WORDS.setdefault(word, len(WORDS)) for word in text.split()]


def reader(ids: str, worked: str = "") -> SignReader:
    return SignReader(tokens, dict.fromkeys(ids, SHOWN), dict.fromkeys(worked, SHOWN), reference_pattern())


def test_shares_are_means_over_problems_of_the_right_rollouts() -> None:
    shown = rollouts({"a": "11", "b": "10"}, response="as the solution says three and four are seven")
    own = rollouts({"c": "10"}, response="count up from three to get there")
    found = reader("abc", worked="ab").table({**shown.correct(), **own.correct()}, seed=0)
    assert (found["problems"], found["rollouts"]) == (3, 4)
    assert found["speaks"]["estimate"] == found["copies"]["estimate"] == pytest.approx(2 / 3)
    assert (found["run"], found["run_share"]) == (5, pytest.approx(5 / 9))
    # c has no worked solution, so nothing is known of its work.
    assert (found["workless"]["estimate"], found["length_share"]) == (0.0, pytest.approx(9 / 5))
    assert found["any"]["estimate"] == pytest.approx(2 / 3)
    assert found["phrases"] == [("the solution says", 3)]


def test_without_a_right_rollout_nothing_is_known() -> None:
    found = reader("a").table({}, seed=0)
    assert (found["problems"], found["rollouts"], found["phrases"]) == (0, 0, [])
    assert {found[name] for name in ("speaks", "copies", "workless", "any", "run", "run_share")} == {None}


def test_plain_rollouts_are_held_against_the_same_texts_and_cliffs_are_told_apart() -> None:
    plain = rollouts({"a": "10", "b": "00"}, response=SHOWN)
    shown = rollouts({"a": "1", "b": "1"}, response=SHOWN)
    figures = leak_figures(reader("ab", worked="ab"), plain, shown, ["b"], seed=0)
    assert [figures[name]["problems"] for name in ("privileged", "on_cliffs", "plain")] == [2, 1, 1]
    assert figures["plain"]["copies"]["estimate"] == 1.0
    # As often as without the text: no sign.
    assert largest_excess(figures) == (0.0, "workless")


def test_the_largest_sign_is_what_plain_rollouts_do_not_show() -> None:
    plain = rollouts({"a": "1"}, response=SHOWN)
    shown = rollouts({"b": "1"}, response="seven")
    figures = leak_figures(reader("ab", worked="ab"), plain, shown, ["b"], seed=0)
    assert largest_excess(figures) == (1.0, "workless")
    nothing = rollouts({"b": "0"})
    assert largest_excess(leak_figures(reader("ab"), plain, nothing, ["b"], seed=0)) is None
