"""Figures: valid PNGs with one panel per metric that exists."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from matplotlib.image import imread

from recipe.hdpo.evaluation.comparison import compare, load_arms
from recipe.hdpo.evaluation.plots import difficulty_png, passk_png, plain, training_png
from tests.hdpo.evaluation.made_results import write_results

SCORES = {"p1": [0, 1, 0], "p2": [0, 0, 0], "p3": [1, 1, 1]}


def _size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


@pytest.fixture
def comparisons(tmp_path):
    folders = [(name, [write_results(tmp_path / name, SCORES)]) for name in ("one", "two")]
    return compare(load_arms(folders[:1])), compare(load_arms(folders))


def test_a_second_arm_adds_the_panel_of_differences(comparisons):
    one, two = (_size(passk_png(c)) for c in comparisons)
    assert two[0] > one[0]
    assert two[1] == one[1]


def test_difficulty_is_drawn(comparisons):
    assert _size(difficulty_png(comparisons[1]))[0] > 400


def test_training_panels_grow_with_the_metrics_that_were_logged():
    steps = np.arange(40)
    few = {"hdpo/cliff_rate": (steps, steps / 40)}
    many = few | {name: (steps, steps * 1.0) for name in ("critic/score/mean", "actor/entropy", "actor/hdpo/loss")}
    assert _size(training_png({"a": [many]}))[1] > _size(training_png({"a": [few]}))[1]


def test_a_metric_that_only_one_arm_logged_is_no_error():
    steps = np.arange(3)
    assert training_png({"grpo": [{"critic/score/mean": (steps, steps)}], "hdpo": [{"hdpo/cliffs": (steps, steps)}]})


def test_no_known_metric_gives_no_figure():
    assert training_png({"a": [{"perf/time": (np.arange(3), np.arange(3))}]}) is None


def _holds_colour(png, colour):
    pixels = np.round(imread(io.BytesIO(png))[..., :3] * 255).astype(int)
    return bool((np.abs(pixels - np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])).sum(axis=-1) == 0).any())


def test_an_arm_keeps_its_colour_where_the_arm_before_it_has_no_training_log():
    curves = {"hdpo/cliff_rate": (np.arange(20), np.linspace(0, 1, 20))}
    alone, second = training_png({"hdpo": [curves]}), training_png({"grpo": [], "hdpo": [curves]})
    blue, orange = "#0072B2", "#D55E00"
    assert (_holds_colour(alone, blue), _holds_colour(alone, orange)) == (True, False)
    assert (_holds_colour(second, blue), _holds_colour(second, orange)) == (False, True)


def test_names_are_drawn_as_they_are_and_never_read_as_formulas(tmp_path):
    arms = [(name, [write_results(tmp_path / name, SCORES, {"p1": "$\\bad$"})]) for name in ("$\\frac$", "_hidden")]
    comparison = compare(load_arms(arms))
    assert passk_png(comparison) and difficulty_png(comparison)
    assert (plain("_hidden"), plain("a$b"), plain("_")) == ("hidden", r"a\$b", "(no name)")
