"""How a cliff's privileged rollouts are divided among the rungs of a ladder."""

import pytest

from recipe.hdpo.algorithm.ladder import rung_sizes


@pytest.mark.parametrize(
    ("n", "rungs", "sizes"),
    [(1, 1, [1]), (3, 1, [3]), (3, 3, [1, 1, 1]), (5, 3, [1, 2, 2]), (4, 3, [1, 1, 2]), (7, 2, [3, 4]), (0, 2, [0, 0])],
)
def test_rollouts_are_divided_evenly_and_the_later_rungs_get_what_is_left(n: int, rungs: int, sizes: list[int]) -> None:
    assert rung_sizes(n, rungs) == sizes


def test_a_ladder_has_a_rung() -> None:
    with pytest.raises(ValueError, match="needs a rung"):
        rung_sizes(2, 0)
