"""How kept trajectories are dealt to mini-batches and ranks."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from recipe.hdpo.training.row_dealing import deal

LENGTHS = st.lists(st.integers(2, 4000), max_size=40)


@given(LENGTHS, st.integers(1, 5), st.integers(1, 9))
def test_every_row_is_dealt_once_and_counts_differ_by_at_most_one(lengths: list[int], steps: int, ranks: int) -> None:
    dealt = deal(lengths, steps, ranks)
    assert len(dealt) == steps and all(len(by_rank) == ranks for by_rank in dealt)
    assert sorted(row for by_rank in dealt for rows in by_rank for row in rows) == list(range(len(lengths)))
    per_step = [sum(map(len, by_rank)) for by_rank in dealt]
    assert max(per_step) - min(per_step) <= 1
    for by_rank in dealt:
        assert max(map(len, by_rank)) - min(map(len, by_rank)) <= 1


@given(LENGTHS, st.integers(1, 5), st.integers(2, 9))
def test_a_mini_batch_holds_the_same_rows_whatever_the_number_of_ranks(
    lengths: list[int], steps: int, ranks: int
) -> None:
    one = [sorted(by_rank[0]) for by_rank in deal(lengths, steps, 1)]
    assert [sorted(itertools.chain(*by_rank)) for by_rank in deal(lengths, steps, ranks)] == one


def test_long_and_short_rows_are_mixed_over_ranks() -> None:
    lengths = [1000, 1000, 10, 10]
    [by_rank] = deal(lengths, 1, 2)
    assert [sum(lengths[row] for row in rows) for rows in by_rank] == [1010, 1010]
