"""Reward calls that never return."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import pytest

from recipe.hdpo.rollout.outputs import UNSCORED, UnscoredRollout
from recipe.hdpo.rollout.reward_limit import RewardLimit
from tests.hdpo.rollout.one_prompt import HANGS, RIGHT, WRONG, run_prompt


class _Jumps(selectors.DefaultSelector):
    """Waits by turning the clock forward."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list:
        self.now += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(_Jumps())

    def time(self) -> float:
        return self._selector.now  # type: ignore[attr-defined]


async def times(limit: RewardLimit, *seconds: float) -> list[tuple[float, str]]:
    """When each call came back or was given up; they begin together."""
    loop = asyncio.get_running_loop()

    async def one(duration: float) -> tuple[float, str]:
        try:
            await limit(asyncio.sleep(duration))
        except UnscoredRollout:
            return loop.time(), "lost"
        return loop.time(), "back"

    return await asyncio.gather(*map(one, seconds))


@pytest.mark.parametrize(
    ("limit", "seconds", "expected"),
    [
        (10.0, [4.0], [(4.0, "back")]),
        (10.0, [1e9], [(10.0, "lost")]),
        # The queue moved at 4 and at 13.
        (10.0, [4.0, 13.0, 22.0], [(4.0, "back"), (13.0, "back"), (22.0, "back")]),
        (10.0, [4.0, 1e9, 1e9], [(4.0, "back"), (14.0, "lost"), (14.0, "lost")]),
        (0.0, [1e6], [(1e6, "back")]),
    ],
)
def test_a_call_is_given_up_once_no_call_has_come_back_for_so_long(limit: float, seconds: list, expected: list) -> None:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        assert runner.run(times(RewardLimit(limit), *seconds)) == [(pytest.approx(t), how) for t, how in expected]


def test_an_error_of_the_reward_function_passes_through() -> None:
    async def fails() -> None:
        raise KeyError("ground_truth")

    with pytest.raises(KeyError, match="ground_truth"):
        asyncio.run(RewardLimit(5.0)(fails()))


def test_a_rollout_whose_reward_never_returns_is_lost_and_makes_no_cliff(chat_model: Any, monkeypatch: Any) -> None:
    answers = iter([WRONG, "hangs", WRONG])
    store, model, _ = run_prompt(
        chat_model, monkeypatch, lambda _: next(answers), "hdpo.reward_timeout=0.01", scores={"hangs": HANGS}
    )
    record = store.record()
    assert (record.cliff, record.lost_rollouts, record.unscored) == (False, 1, 1)
    assert "has not returned within 0.01 s (hdpo.reward_timeout)" in record.first_error
    assert sorted(store.fields) == ["uid-1_0_0", "uid-1_2_0"] and len(model.prompts) == 3


def test_in_validation_it_counts_as_wrong_with_its_reason(chat_model: Any, monkeypatch: Any) -> None:
    answers = iter([RIGHT, "hangs", RIGHT])
    store, _, _ = run_prompt(
        chat_model,
        monkeypatch,
        lambda _: next(answers),
        "hdpo.reward_timeout=0.01",
        "actor_rollout_ref.rollout.val_kwargs.n=3",
        scores={"hangs": HANGS, RIGHT: 1.0},
        validate=True,
    )
    rows = {key: row["extra_fields"]["reward_extra_info"] for key, row in store.fields.items()}
    assert [UNSCORED in rows[f"uid-1_{i}_0"] for i in range(3)] == [False, True, False]
    assert float(store.fields["uid-1_1_0"]["rm_scores"].sum()) == 0.0
