"""Figures: whole SVGs with one panel per metric that exists."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from recipe.hdpo.evaluation.comparison import compare, load_arms
from recipe.hdpo.evaluation.plots import difficulty_svg, passk_svg, plain, training_svg
from tests.hdpo.evaluation.made_results import write_results

SCORES = {"p1": [0, 1, 0], "p2": [0, 0, 0], "p3": [1, 1, 1]}


def _size(svg):
    ElementTree.fromstring(svg)
    return tuple(float(number) for number in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())


@pytest.fixture
def comparisons(tmp_path):
    folders = [(name, [write_results(tmp_path / name, SCORES)]) for name in ("one", "two")]
    return compare(load_arms(folders[:1])), compare(load_arms(folders))


def test_a_second_arm_adds_the_panel_of_differences(comparisons):
    one, two = (_size(passk_svg(c)) for c in comparisons)
    assert two[0] > one[0]
    assert two[1] == one[1]


def test_accuracy_and_coverage_are_drawn_by_difficulty(comparisons):
    svg = difficulty_svg(comparisons[1])
    assert _size(svg)[0] > 400
    assert "pass@1 by difficulty" in svg and "pass@2 by difficulty" in svg


def test_figures_take_the_pages_colour_for_lines_and_text_and_have_no_background(comparisons):
    for svg in (passk_svg(comparisons[1]), difficulty_svg(comparisons[1])):
        assert "currentColor" in svg and "#ffffff" not in svg and svg.startswith("<svg")


def test_training_panels_grow_with_the_metrics_that_were_logged():
    steps = np.arange(40)
    few = {"hdpo/cliff_rate": (steps, steps / 40)}
    many = few | {name: (steps, steps * 1.0) for name in ("critic/score/mean", "actor/entropy", "actor/hdpo/loss")}
    assert _size(training_svg({"a": [many]}))[1] > _size(training_svg({"a": [few]}))[1]


def test_a_metric_that_only_one_arm_logged_is_no_error():
    steps = np.arange(3)
    assert training_svg({"grpo": [{"critic/score/mean": (steps, steps)}], "hdpo": [{"hdpo/cliffs": (steps, steps)}]})


def test_no_known_metric_gives_no_figure():
    assert training_svg({"a": [{"perf/time": (np.arange(3), np.arange(3))}]}) is None


def test_an_arm_keeps_its_colour_where_the_arm_before_it_has_no_training_log():
    curves = {"hdpo/cliff_rate": (np.arange(20), np.linspace(0, 1, 20))}
    alone, second = training_svg({"hdpo": [curves]}), training_svg({"grpo": [], "hdpo": [curves]})
    blue, orange = "#2f8fd8", "#d55e00"
    assert (blue in alone, orange in alone) == (True, False)
    assert (blue in second, orange in second) == (False, True)


def test_names_are_drawn_as_they_are_and_never_read_as_formulas(tmp_path):
    arms = [(name, [write_results(tmp_path / name, SCORES, {"p1": "$\\bad$"})]) for name in ("$\\frac$", "_hidden")]
    comparison = compare(load_arms(arms))
    assert passk_svg(comparison) and difficulty_svg(comparison)
    assert (plain("_hidden"), plain("a$b"), plain("_")) == ("hidden", r"a\$b", "(no name)")
