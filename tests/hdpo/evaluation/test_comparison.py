"""Arms paired by problem: hand-worked differences, and everything that must not be compared."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recipe.hdpo.evaluation.comparison import compare, load_arms
from recipe.hdpo.evaluation.records import SAMPLES
from recipe.hdpo.evaluation.writer import ResultWriter
from tests.hdpo.evaluation.made_results import meta, sample, write_results

BASE = {"p1": [0, 1, 0], "p2": [0, 0, 0], "p3": [1, 1, 1], "p4": [0, 0, 0]}
ARM = {"p1": [1, 1, 1], "p2": [0, 1, 0], "p3": [0, 1, 0], "p4": [0, 0, 0]}


def _two(tmp_path, **changes):
    return [
        ("base", [write_results(tmp_path / "base", BASE)]),
        ("arm", [write_results(tmp_path / "arm", ARM, model_sha256="other", **changes)]),
    ]


def _row(comparison, metric, arm="arm"):
    return next(d for d in comparison.differences if (d["metric"], d["arm"]) == (metric, arm))


def test_differences_wins_and_losses_by_hand(tmp_path):
    comparison = compare(load_arms(_two(tmp_path)))
    row = _row(comparison, "pass@1")  # +0.5, +0.5, -0.5, 0
    assert row["estimate"] == pytest.approx(0.125)
    assert (row["won"], row["lost"], row["tied"]) == (2, 1, 1)
    assert row["p"] == pytest.approx(1.0)  # 8 sign patterns of three equal sizes: every |sum| is 0.5 or 1.5
    newly = _row(comparison, "pass@2")  # p2 is solved by the arm only
    assert (newly["estimate"], newly["won"], newly["lost"]) == (0.25, 1, 0)
    assert comparison.means["base"]["pass@1"]["estimate"] == pytest.approx(0.375)


def test_problems_are_paired_by_id_and_not_by_their_place(tmp_path):
    straight = compare(load_arms(_two(tmp_path)))
    lines = (tmp_path / "arm" / SAMPLES).read_bytes().splitlines(keepends=True)
    np.random.default_rng(1).shuffle(lines)
    (tmp_path / "arm" / SAMPLES).write_bytes(b"".join(lines))
    shuffled = compare(load_arms([("base", [tmp_path / "base"]), ("arm", [tmp_path / "arm"])]))
    assert shuffled.differences == straight.differences


def test_several_runs_are_averaged_by_problem_before_counting_wins(tmp_path):
    second = {"p1": [0, 0, 0], "p2": [0, 0, 0], "p3": [1, 1, 1], "p4": [0, 1, 1]}
    folders = [
        ("base", [write_results(tmp_path / "b1", BASE)]),
        ("arm", [write_results(tmp_path / "a1", ARM), write_results(tmp_path / "a2", second)]),
    ]
    arms = load_arms(folders)
    np.testing.assert_allclose(arms[1].values("pass@1"), [[1, 0.5, 0.5, 0], [0, 0, 1, 1]])
    comparison = compare(arms)
    row = _row(comparison, "pass@1")  # arm means .5 .25 .75 .5 against .5 0 1 0
    assert row["estimate"] == pytest.approx(0.125)
    assert (row["won"], row["lost"], row["tied"]) == (2, 1, 1)
    assert any("same weights" in note for note in comparison.notes)


def test_the_baseline_is_the_first_arm_and_every_other_arm_meets_it(tmp_path):
    folders = [(name, [write_results(tmp_path / name, BASE, model_sha256=name)]) for name in ("x", "y", "z")]
    comparison = compare(load_arms(folders))
    assert {(d["baseline"], d["arm"]) for d in comparison.differences} == {("x", "y"), ("x", "z")}
    assert all(d["estimate"] == 0 and d["p"] == 1.0 for d in comparison.differences)


def test_accuracy_and_coverage_by_difficulty(tmp_path):
    levels = {"p1": "2", "p2": "10", "p3": "2", "p4": "10"}
    folders = [("base", [write_results(tmp_path / "b", BASE, levels)])]
    comparison = compare(load_arms(folders))
    means = {level: point["estimate"] for level, point in comparison.by_difficulty["pass@1"]["base"].items()}
    assert means == {"2": 0.75, "10": 0.0}
    assert comparison.problems_by_difficulty == {"2": 2, "10": 2}


def test_a_run_without_any_answer_loses_every_vote_and_stays_in_the_comparison(tmp_path):
    answers = write_results(tmp_path / "b", {"p1": [1, 1, 1, 1, 1]})
    with ResultWriter(tmp_path / "a", meta(1)) as writer:
        writer.write(sample("p1", i, False, answer=None) for i in range(-1, 4))
    comparison = compare(load_arms([("b", [answers]), ("a", [tmp_path / "a"])]))
    assert [comparison.means[arm]["maj@4"]["estimate"] for arm in "ba"] == [1.0, 0.0]


def test_the_comparison_is_json(tmp_path):
    content = compare(load_arms(_two(tmp_path))).as_dict()
    assert json.loads(json.dumps(content)) == content


def test_arms_with_different_n_share_the_smaller_ones_k(tmp_path):
    more = {problem: [*row, 0, 0] for problem, row in ARM.items()}
    arms = load_arms([("b", [write_results(tmp_path / "b", BASE)]), ("a", [write_results(tmp_path / "a", more)])])
    comparison = compare(arms)
    assert comparison.ks == [1, 2]
    assert any("differ in n: 2, 4" in note for note in comparison.notes)


def test_other_problems_are_refused_with_the_counts(tmp_path):
    other = {**ARM, "p9": [0, 0, 0]}
    del other["p1"]
    folders = [("b", [write_results(tmp_path / "b", BASE)]), ("a", [write_results(tmp_path / "a", other)])]
    with pytest.raises(ValueError, match=r"not results of the same problems: 1 of the first.*1 are only there.*p1"):
        load_arms(folders)


MEASURED = {
    **{"temperature": 0.6, "top_p": 0.9, "top_k": 20, "max_tokens": 99},
    **{"grader": "q", "reward_function": "other", "reward_kwargs": {"bonus": 1}, "success_reward": 0.5},
    "chat_template_kwargs": {"enable_thinking": False},
}


@pytest.mark.parametrize(("key", "value"), MEASURED.items(), ids=MEASURED)
def test_arms_measured_differently_are_refused(tmp_path, key, value):
    with pytest.raises(ValueError, match=f"measured differently.*{key}"):
        load_arms(_two(tmp_path, **{key: value}))


def test_a_folder_or_a_name_given_twice_is_refused(tmp_path):
    folder = write_results(tmp_path / "b", BASE)
    for folders in ([("b", [folder]), ("c", [folder])], [("b", [folder]), ("b", [tmp_path / "x"])]):
        with pytest.raises(ValueError, match="given twice"):
            load_arms(folders)


def test_an_unfinished_run_is_refused(tmp_path):
    folders = _two(tmp_path)
    file = tmp_path / "arm" / SAMPLES
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match="cut off"):
        load_arms(folders)
