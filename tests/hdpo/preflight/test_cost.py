"""What schedules cost, where it can be worked out by hand."""

from __future__ import annotations

import pytest

from recipe.hdpo.preflight.cost import predicted_cost
from tests.hdpo.preflight.made import rollouts

PLAIN = rollouts({"a": "00"}, {"a": [60, 40]})


def test_a_step_of_nothing_but_one_cliff_waits_for_its_privileged_rollouts() -> None:
    found = predicted_cost(PLAIN, rollouts({"a": "11"}, {"a": [30, 30]}), prompts=4, shown=2, seed=0)
    assert found["rollouts_alone"] == {"same_step": pytest.approx(90 / 60), "next_step": pytest.approx(1.0)}
    assert found["half_the_step"]["same_step"] == pytest.approx(150 / 120)
    assert found["tokens"] == pytest.approx(2 * 30 / 100)
    longer = predicted_cost(PLAIN, rollouts({"a": "11"}, {"a": [75, 75]}), prompts=4, shown=1, seed=0)
    # From the second step on it is the longest of all.
    assert longer["rollouts_alone"]["next_step"] == pytest.approx((60 + 399 * 75) / (400 * 60))


def test_without_cliffs_or_without_what_is_shown_to_them_it_costs_nothing() -> None:
    solved = rollouts({"a": "01"}, {"a": [60, 40]})
    for plain, shown in ((solved, rollouts({"a": "1"})), (PLAIN, rollouts({"b": "1"}))):
        found = predicted_cost(plain, shown, prompts=4, shown=1, seed=0)
        assert found["rollouts_alone"] == found["half_the_step"] == {"same_step": 1.0, "next_step": 1.0}
        assert found["tokens"] == 0.0


def test_without_a_graded_group_nothing_is_predicted() -> None:
    found = predicted_cost(rollouts({"a": "0?"}), rollouts({"a": "1"}), prompts=4, shown=1, seed=0)
    assert (found["problems"], found["tokens"], found["rollouts_alone"]) == (0, None, None)
