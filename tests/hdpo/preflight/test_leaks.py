"""Signs of copying over problems, and the sign that matters."""

from __future__ import annotations

from recipe.hdpo.algorithm.leakage import reference_pattern
from recipe.hdpo.evaluation.leaks import SignReader
from recipe.hdpo.preflight.leaks import largest_excess, leak_figures
from tests.hdpo.preflight.made import rollouts

WORDS: dict[str, int] = {}
SHOWN = "three and four are seven"


def tokens(text: str) -> list[int]:
    return [WORDS.setdefault(word, len(WORDS)) for word in text.split()]


def reader(ids: str, worked: str = "") -> SignReader:
    return SignReader(tokens, dict.fromkeys(ids, SHOWN), dict.fromkeys(worked, SHOWN), reference_pattern())


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
