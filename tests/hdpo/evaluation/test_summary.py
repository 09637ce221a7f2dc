"""Metrics of a result folder, worked by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from recipe.hdpo.evaluation.records import read_results
from recipe.hdpo.evaluation.summary import natural, print_summary, summarise, tabulate
from recipe.hdpo.evaluation.writer import ResultWriter
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
        writer.write([sample("p1", -1, True, tokens=900, truncated=True), sample("p1", 0, False)])
    values = tabulate(read_results(tmp_path / "r")).values
    assert {m: v[0] for m, v in values.items()} == {"greedy": 1, "pass@1": 0, "mean_tokens": 10, "truncated": 0}


def test_overall_means_and_intervals(tmp_path):
    summary = summarise(read_results(write_results(tmp_path / "r", SCORES)))
    overall = summary["overall"]
    assert overall["greedy"]["estimate"] == 0.5
    assert overall["pass@1"]["estimate"] == pytest.approx(0.4375)
    assert 0 <= overall["pass@1"]["low"] < 0.4375 < overall["pass@1"]["high"] <= 1
    assert json.loads(json.dumps(summary)) == summary


def test_labels_with_digits_of_any_kind_have_a_natural_order():
    assert sorted(["level 10", "level 9", "level ²", "③"], key=natural) == ["level 9", "level 10", "level ²", "③"]


def test_groups_by_difficulty_and_by_source(tmp_path):
    with ResultWriter(tmp_path / "r", meta(3, n=1)) as writer:
        for problem, source, level, right in [("p1", "x", "2", 1), ("p2", "x", "10", 0), ("p3", "y", "2", 1)]:
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
        writer.write(sample("p1", i, True, score=score) for i, score in [(-1, 0.49), (0, 0.5), (1, 0.4)])
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


@pytest.mark.parametrize(
    ("answer", "right", "samples", "said"),
    [(None, True, 3, "4 right"), (None, False, 3, "no response"), (None, True, 2, None), ("7", True, 3, None)],
)
def test_a_majority_vote_without_answers_is_left_out_and_said(tmp_path, answer, right, samples, said):
    with ResultWriter(tmp_path / "r", meta(1, n=samples)) as writer:
        writer.write(sample("p1", i, right, answer=answer) for i in range(-1, samples))
    summary = summarise(read_results(tmp_path / "r"), [1, samples])
    assert ("maj@3" in summary["overall"]) == (answer is not None)
    assert any(f"maj@k is left out: {said}" in note for note in summary["notes"]) == (said is not None)


def test_one_marked_answer_does_not_make_a_vote_of_right_responses_without_one(tmp_path):
    with ResultWriter(tmp_path / "r", meta(2, n=3)) as writer:
        writer.write(sample("p1", i, True, answer=None) for i in range(-1, 3))
        writer.write(sample("p2", i, False) for i in range(-1, 3))
    assert "maj@3" not in summarise(read_results(tmp_path / "r"), [1, 3])["overall"]


def test_a_wrong_response_without_an_answer_has_no_vote_and_takes_none_from_the_others(tmp_path):
    with ResultWriter(tmp_path / "r", meta(1, n=3)) as writer:
        writer.write(sample("p1", i, i != 0, answer=None if i == 0 else "7") for i in range(-1, 3))
    assert summarise(read_results(tmp_path / "r"), [3])["overall"]["maj@3"]["estimate"] == 1.0


def test_equal_lengths_leave_the_mean_length_of_other_problems_open(tmp_path):
    with ResultWriter(tmp_path / "r", meta(2, n=1)) as writer:
        writer.write(sample(p, i, True, tokens=12) for p in ("p1", "p2") for i in (-1, 0))
    length = summarise(read_results(tmp_path / "r"))["overall"]["mean_tokens"]
    assert 0 <= length["low"] < 12 == length["estimate"] < length["high"] <= 16


def test_ungraded_samples_count_as_wrong_and_the_notes_say_how_much_that_can_hide(tmp_path):
    results = read_results(write_results(tmp_path / "r", {"p1": [1, 0, 1], "p2": [0, 0, 1]}))
    assert not any("graded" in note for note in summarise(results)["notes"])
    marked = [
        replace(s, unscored="time limit") if (s.problem_id, s.sample) in {("p1", 0), ("p2", -1)} else s
        for s in results.samples
    ]
    summary = summarise(replace(results, samples=marked))
    note = next(note for note in summary["notes"] if "graded" in note)
    assert note.startswith("2 sample(s) could not be graded and count as wrong (time limit: sample ")
    # one of the 2 * 2 drawn samples, one of the 2 greedy ones
    assert note.endswith("Had all been right, pass@1 would be 0.250 and greedy 0.500 higher.")
    assert summary["overall"]["pass@1"]["estimate"] == summarise(results)["overall"]["pass@1"]["estimate"]
