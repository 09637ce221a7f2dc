"""What the documents say of the demo in words is what its counts hold; `scripts/docs_parts` fills in the numbers."""

from __future__ import annotations

import pytest

from scripts.docs_parts import measured


def test_the_demos_counts_are_of_200_problems_40_of_each_number_of_terms() -> None:
    assert dict(measured.counts().terms.value_counts()) == {terms: 40 for terms in range(2, 7)}


def test_the_demos_report_and_its_counts_have_the_same_means() -> None:
    report = measured._json("demo/report.json")
    for arm in measured.ARMS.values():
        for metric in ("greedy", "pass@1", "pass@4", "pass@8"):
            assert measured.demo(arm, metric) == f"{report['arms'][arm]['metrics'][metric]['estimate']:.3f}"


def test_hdpo_solves_about_half_of_the_demos_sums_of_5_and_6_within_8_samples() -> None:
    longest = measured.counts()[measured.counts().terms >= 5]
    assert 0.45 < (longest.hdpo_of_8 > 0).mean() < 0.55 and (longest.grpo_of_8 > 0).mean() < 0.1


@pytest.mark.parametrize(("which", "rises"), [("first", True), ("second", False)])
def test_the_same_command_came_out_differently_from_the_base_models_of_two_machines(which: str, rises: bool) -> None:
    assert (float(measured.own(which, "hdpo", "pass@8")) > float(measured.own(which, "base", "pass@8"))) == rises


def test_from_the_second_of_these_base_models_no_test_problem_beyond_3_numbers_was_solved() -> None:
    beyond = measured.counts("second")[measured.counts("second").terms > 3]
    assert len(beyond) == 120 and beyond[["hdpo_greedy", "hdpo_of_8"]].to_numpy().sum() == 0
