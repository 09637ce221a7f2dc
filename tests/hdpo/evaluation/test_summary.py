"""Metrics of a result folder, worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recipe.hdpo.evaluation.records import ResultWriter, read_results
from recipe.hdpo.evaluation.summary import print_summary, summarise, tabulate
from tests.hdpo.evaluation.made_results import meta, sample, write_results

# greedy, then four samples; the right answer is 7, every wrong sample has an answer of its own
SCORES = {"p1": [1, 1, 1, 0, 0], "p2": [0, 0, 0, 0, 0], "p3": [1, 0, 0, 0, 1], "p4": [0, 1, 1, 1, 1]}


def test_every_metric_of_every_problem_by_hand(tmp_path):
    table = tabulate(read_results(write_results(tmp_path / "r", SCORES)))
    assert table.ids == ["p1", "p2", "p3", "p4"]
    np.testing.assert_allclose(table.values["greedy"], [1, 0, 1, 0])
    np.testing.assert_allclose(table.values["pass@1"], [0.5, 0, 0.25, 1])
    np.testing.assert_allclose(table.values["pass@2"], [5 / 6, 0, 0.5, 1])
    np.testing.assert_allclose(table.values["pass@4"], [1, 0, 1, 1])
    assert "maj@2" not in table.values
    # p1 at k = 4: 7 has two votes against one each -> 1; p3: a four-way tie -> 1/4
    np.testing.assert_allclose(table.values["maj@4"], [1, 0, 0.25, 1])
    np.testing.assert_allclose(table.values["mean_tokens"], [11.5] * 4)


def test_the_greedy_response_counts_in_no_other_metric(tmp_path):
    with ResultWriter(tmp_path / "r", meta(1, n=1)) as writer:
        writer.write([sample("p", -1, True, tokens=900, truncated=True), sample("p", 0, False)])
    values = tabulate(read_results(tmp_path / "r")).values
    assert {m: v[0] for m, v in values.items()} == {"greedy": 1, "pass@1": 0, "mean_tokens": 10, "truncated": 0}


def test_overall_means_and_intervals(tmp_path):
    summary = summarise(read_results(write_results(tmp_path / "r", SCORES)))
    overall = summary["overall"]
    assert overall["greedy"]["estimate"] == 0.5
    assert overall["pass@1"]["estimate"] == pytest.approx(0.4375)
    assert 0 <= overall["pass@1"]["low"] < 0.4375 < overall["pass@1"]["high"] <= 1
    assert json.loads(json.dumps(summary)) == summary


def test_groups_by_difficulty_and_by_source(tmp_path):
    with ResultWriter(tmp_path / "r", meta(3, n=1)) as writer:
        for problem, source, level, right in [("a", "x", "2", 1), ("b", "x", "10", 0), ("c", "y", "2", 1)]:
            writer.write(
                sample(problem, i, bool(right), data_source=source, difficulty=level, answer=None) for i in (-1, 0)
            )
    summary = summarise(read_results(tmp_path / "r"))
    sources = {name: (g["problems"], g["metrics"]["pass@1"]["estimate"]) for name, g in summary["data_source"].items()}
    assert sources == {"x": (2, 0.5), "y": (1, 1.0)}
    # level 2 of one source is not level 2 of another, and 10 comes after 2
    assert list(summary["difficulty"]) == ["x / 2", "x / 10", "y / 2"]


def test_a_score_counts_from_the_success_reward_on(tmp_path):
    folder = tmp_path / "r"
    with ResultWriter(folder, meta(1, n=2, success_reward=0.5)) as writer:
        writer.write(sample("p", i, True, score=score) for i, score in [(-1, 0.49), (0, 0.5), (1, 0.4)])
    values = tabulate(read_results(folder)).values
    assert (values["greedy"][0], values["pass@1"][0]) == (0.0, 0.5)


def test_chosen_k_are_used_and_a_k_above_n_is_refused(tmp_path):
    results = read_results(write_results(tmp_path / "r", SCORES))
    assert [m for m in tabulate(results, [3, 1, 3]).values if m.startswith("pass")] == ["pass@1", "pass@3"]
    with pytest.raises(ValueError, match="k=5 with n=4"):
        tabulate(results, [5])


def test_the_printed_table_has_one_line_per_group(tmp_path):
    levels = {"p1": "1", "p2": "2", "p3": "1", "p4": "2"}
    folder = write_results(tmp_path / "r", SCORES, levels)
    text = print_summary(summarise(read_results(folder)))
    assert [line.split("  ")[0] for line in text.splitlines()[2:5]] == ["all", "difficulty 1", "difficulty 2"]
    assert "0.500 [" in text


def test_the_same_seed_gives_the_same_summary(tmp_path):
    results = read_results(write_results(tmp_path / "r", SCORES))
    assert summarise(results, seed=4) == summarise(results, seed=4)


@pytest.mark.parametrize(("answer", "samples", "said"), [(None, 3, True), (None, 2, False), ("7", 3, False)])
def test_a_majority_vote_without_answers_is_left_out_and_said(tmp_path, answer, samples, said):
    with ResultWriter(tmp_path / "r", meta(1, n=samples)) as writer:
        writer.write(sample("p", i, True, answer=answer) for i in range(-1, samples))
    summary = summarise(read_results(tmp_path / "r"), [1, samples])
    assert ("maj@3" in summary["overall"]) == (answer is not None)
    assert any("maj@k is left out" in note for note in summary["notes"]) == said
