"""What a ladder would solve, worked by hand."""

import pytest

from recipe.hdpo.preflight.ladder import ladder_figures
from tests.hdpo.preflight.made import rollouts

SHOWN = {
    "solution": rollouts({"a": "11", "b": "10", "x": "11"}),
    "prefix:0.5": rollouts({"a": "10", "b": "00"}),
    "answer": rollouts({"a": "00", "b": "00", "c": "00"}),
    "prefix:0.2": rollouts({"b": "1?"}),
}


def test_cliffs_solved_on_each_rung_the_least_telling_source_first() -> None:
    found = ladder_figures(SHOWN, list(SHOWN), ["a", "b", "d"], seed=0)
    assert found["sources"] == ["prefix:0.2", "prefix:0.5", "solution"] and found["problems"] == 2
    # a: half with prefix:0.5, the rest with the solution; b: always with prefix:0.2.
    assert found["by_rung"] == [0.5, 0.25, 0.25] and found["solved"]["estimate"] == 1.0
    found = ladder_figures(SHOWN, ["solution", "prefix:0.5"], ["a", "b"], seed=0)
    assert found["by_rung"] == [0.25, 0.5] and found["solved"]["estimate"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("sources", "cliffs"),
    [(["solution"], ["a"]), (["answer", "solution"], ["a"]), ([], []), (["solution", "prefix:0.5"], [])],
)
def test_without_two_sources_that_solve_there_is_no_ladder(sources: list[str], cliffs: list[str]) -> None:
    assert ladder_figures(SHOWN, sources, cliffs, seed=0) == {}
