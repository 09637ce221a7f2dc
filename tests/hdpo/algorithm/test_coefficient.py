"""How lambda changes over a run, by hand."""

import pytest

from recipe.hdpo.algorithm.coefficient import STEPS, CliffShare, factor


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.75, 0.5, 0.25]),
        ("cosine", [1.0, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2]),
        ("cliff_rate", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_factor_of_each_of_four_steps(schedule: str, expected: list[float]) -> None:
    assert [factor(schedule, step, 4, CliffShare()) for step in range(1, 5)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_behind_the_last_step_lambda_is_0(schedule: str) -> None:
    assert factor(schedule, 9, 4, CliffShare()) == pytest.approx(0.0)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_run_that_goes_on_with_more_steps_stretches_the_schedule(schedule: str) -> None:
    last, longer = (factor(schedule, 100, steps, CliffShare()) for steps in (100, 200))
    assert 0.0 < last < 0.02 and longer > 0.5


def test_with_fewer_cliffs_lambda_falls_and_with_more_it_stays() -> None:
    share = CliffShare()
    for _ in range(STEPS):
        share.update(4, 16)
        assert share.factor == 1.0
    share.update(0, 16)
    assert share.recent == pytest.approx(0.25 * (1 - 1 / STEPS)) and share.factor == pytest.approx(1 - 1 / STEPS)
    for _ in range(200):
        share.update(1, 16)
    assert share.factor == pytest.approx(0.25)
    assert factor("cliff_rate", 300, 1000, share) == share.factor
    for _ in range(200):
        share.update(16, 16)
    assert share.factor == 1.0


def test_prompts_weigh_alike_in_the_first_rate_and_steps_without_prompts_change_nothing() -> None:
    share = CliffShare()
    share.update(1, 1)
    share.update(0, 0)
    share.update(0, 3)
    assert (share.recent, share.steps) == (0.25, 2)


def test_without_cliffs_at_the_beginning_lambda_is_not_changed() -> None:
    share = CliffShare()
    for _ in range(2 * STEPS):
        share.update(0, 16)
    assert share.factor == 1.0


def test_the_state_goes_through_a_checkpoint() -> None:
    share = CliffShare()
    for cliffs in range(15):
        share.update(cliffs, 16)
    assert CliffShare(**share.state_dict()) == share
