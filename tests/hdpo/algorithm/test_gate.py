"""The gate: on made signs of each kind and their near misses, and each threshold at its edge."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from recipe.hdpo.algorithm.gate import FAILED, REASONS, Gate, Signs, reason_to_drop

OFF = Gate(speaks=False, run_share=None, length_share=None, steps=None, no_steps=0.0, reliance=None)
CLEAN = Signs(speaks=False, run=4, run_share=0.2, length_share=1.1, steps=1.0, step_check="done")
# By reason: a gate that asks for it, signs that are dropped for it, and signs that just pass.
CASES: dict[str, tuple[Gate, Signs, Signs]] = {
    "speaks": (replace(OFF, speaks=True), replace(CLEAN, speaks=True), CLEAN),
    "run_share": (replace(OFF, run_share=0.5), replace(CLEAN, run_share=0.51), replace(CLEAN, run_share=0.5)),
    "length_share": (
        replace(OFF, length_share=0.3),
        replace(CLEAN, length_share=0.2),
        replace(CLEAN, length_share=0.3),
    ),
    "length_unknown": (replace(OFF, length_share=0.3), replace(CLEAN, length_share=None), CLEAN),
    "steps": (replace(OFF, steps=0.5), replace(CLEAN, steps=0.49), replace(CLEAN, steps=0.5)),
    "step_check_error": (replace(OFF, steps=0.5), replace(CLEAN, steps=None, step_check=FAILED), CLEAN),
}


def test_every_reason_has_a_case() -> None:
    assert tuple(CASES) == REASONS


@pytest.mark.parametrize("reason", REASONS)
def test_what_a_threshold_is_for_is_dropped_under_its_name_and_what_reaches_it_stays(reason: str) -> None:
    gate, dropped, passing = CASES[reason]
    assert reason_to_drop(dropped, gate) == reason
    assert reason_to_drop(passing, gate) is None
    assert reason_to_drop(dropped, OFF) is None


@pytest.mark.parametrize(("no_steps", "reason"), [(0.0, "steps"), (0.49, "steps"), (0.5, None), (1.0, None)])
def test_a_response_without_steps_counts_as_the_share_that_is_set(no_steps: float, reason: str | None) -> None:
    none = replace(CLEAN, steps=None)
    assert reason_to_drop(none, replace(OFF, steps=0.5, no_steps=no_steps)) == reason
    assert reason_to_drop(none, replace(OFF, no_steps=no_steps)) is None


def test_a_response_whose_steps_are_all_false_is_not_one_without_steps() -> None:
    assert reason_to_drop(replace(CLEAN, steps=0.0), replace(OFF, steps=0.5, no_steps=1.0)) == "steps"


def test_of_two_reasons_the_first_in_their_order_counts() -> None:
    everything = Gate(speaks=True, run_share=0.5, length_share=0.3, steps=0.5, no_steps=0.0, reliance=None)
    bad = {
        "speaks": {"speaks": True},
        "run_share": {"run_share": 0.9},
        "length_share": {"length_share": 0.1},
        "steps": {"steps": 0.0},
    }
    for first, second in itertools.combinations(bad, 2):
        assert reason_to_drop(replace(CLEAN, **bad[first], **bad[second]), everything) == first  # type: ignore[arg-type]


def test_a_text_that_was_not_shown_is_no_copy_and_workless_is_half_of_the_worked_solution() -> None:
    gate = replace(OFF, run_share=0.0)
    assert reason_to_drop(replace(CLEAN, run=None, run_share=None), gate) is None
    assert reason_to_drop(CLEAN, gate) == "run_share"
    assert [replace(CLEAN, length_share=share).workless for share in (0.49, 0.5, None)] == [True, False, None]


def test_the_thresholds_that_are_on_are_named() -> None:
    assert OFF.asks == [] and replace(OFF, no_steps=0.7).asks == []
    assert replace(OFF, speaks=True, run_share=0.0, reliance=0.0).asks == ["speaks", "run_share", "reliance"]
