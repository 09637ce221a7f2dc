"""Loading and calling the reward function."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest

from recipe.hdpo.evaluation.problems import Problem
from recipe.hdpo.evaluation.scoring import DEFAULT_REWARD, load_reward, score_response

PROBLEM = Problem("id1", "made", "1", [{"role": "user", "content": "1+1=?"}], "2", {"index": 4})


def _load(tmp_path, body, name="compute_score"):
    file = tmp_path / "my_reward.py"
    file.write_text(f"def {name}(data_source, solution_str, ground_truth, extra_info=None, **kw):\n    {body}\n")
    return load_reward(f"{file}:{name}")


def test_a_number_is_a_score_without_an_answer(tmp_path):
    reward, path = _load(tmp_path, "return solution_str == ground_truth")
    assert score_response(reward, PROBLEM, "2") == (1.0, None, "")
    assert score_response(reward, PROBLEM, "3") == (0.0, None, "")
    assert path == tmp_path / "my_reward.py"


def test_a_function_that_is_async_is_waited_for(tmp_path):
    file = tmp_path / "judge.py"
    file.write_text("async def compute_score(solution_str, **kw):\n    return {'score': float(solution_str)}\n")
    reward, _ = load_reward(str(file))
    assert score_response(reward, PROBLEM, "0.5")[0] == 0.5


def test_a_dict_gives_the_score_and_the_stripped_answer(tmp_path):
    reward, _ = _load(tmp_path, "return {'score': 0.5, 'pred': ' 12 '}")
    assert score_response(reward, PROBLEM, "x") == (0.5, "12", "")


@pytest.mark.parametrize("said", ["[INVALID]", "", " "])
def test_a_response_that_the_reward_function_finds_no_answer_in_has_none(tmp_path, said):
    reward, _ = _load(tmp_path, f"return {{'score': 0.0, 'pred': {said!r}}}")
    assert score_response(reward, PROBLEM, "\\boxed{2}") == (0.0, None, "")


def test_verls_math_dapo_gives_a_response_without_an_answer_no_vote():
    found = find_spec("verl")
    assert found and found.submodule_search_locations
    math_dapo, _ = load_reward(f"{found.submodule_search_locations[0]}/utils/reward_score/math_dapo.py")

    def reward(solution_str, ground_truth, **_):
        return math_dapo(solution_str, ground_truth)

    assert score_response(reward, PROBLEM, "Answer: 2") == (1.0, "2", "")
    assert score_response(reward, PROBLEM, "I do not know.") == (-1.0, None, "")


def test_the_answer_key_is_read_when_there_is_no_pred(tmp_path):
    reward, _ = _load(tmp_path, "return {'score': 1, 'answer': 7, 'pred': None}")
    assert score_response(reward, PROBLEM, "x") == (1.0, "7", "")


def test_the_function_gets_source_truth_and_extra_info(tmp_path):
    reward, _ = _load(tmp_path, "return {'score': 1, 'pred': f'{data_source} {ground_truth} {extra_info}'}")
    assert score_response(reward, PROBLEM, "x")[1] == "made 2 {'index': 4}"


def test_a_file_with_a_dataclass_and_postponed_annotations_is_loaded(tmp_path):
    lines = ["from __future__ import annotations", "import dataclasses", "@dataclasses.dataclass", "class Found:"]
    lines += ["    score: float", "def compute_score(**kw):", "    return dataclasses.asdict(Found(1.0))"]
    (tmp_path / "r.py").write_text("\n".join(lines))
    assert score_response(load_reward(str(tmp_path / "r.py"))[0], PROBLEM, "x") == (1.0, None, "")


def test_the_function_name_defaults_to_compute_score(tmp_path):
    _load(tmp_path, "return 1.0")
    assert load_reward(str(tmp_path / "my_reward.py"))[0].__name__ == "compute_score"


@pytest.mark.parametrize(
    ("response", "answer"),
    [("1+1=2\n#### 1,002.", "1002"), ("so \\boxed{ $7$ }.", "7"), ("no marker: 7", None), ("", None)],
)
def test_without_a_named_answer_the_marked_text_of_the_response_counts(tmp_path, response, answer):
    for body in ("return 1.0", "return {'score': 1.0}"):
        reward, _ = _load(tmp_path, body)
        assert score_response(reward, PROBLEM, response) == (1.0, answer, "")


@pytest.mark.parametrize("body", ["raise KeyError('boom')", "return {'no': 1}", "return 'high'"])
def test_a_failing_function_is_reported_with_the_problem_and_the_response(tmp_path, body):
    reward, _ = _load(tmp_path, body)
    with pytest.raises(ValueError, match=r"failed on problem id1 .*response: 'text'"):
        score_response(reward, PROBLEM, "text")


def test_a_response_that_could_not_be_graded_keeps_its_reason(tmp_path):
    reward, _ = _load(tmp_path, "return {'score': 0.0, 'hdpo_unscored': 'over its time limit'}")
    assert score_response(reward, PROBLEM, "text") == (0.0, None, "over its time limit")
    truth_is_none = replace(PROBLEM, ground_truth=None)
    own = score_response(load_reward(DEFAULT_REWARD)[0], truth_is_none, "#### 2")
    assert own.score == 0.0 and own.unscored == "the ground truth is NoneType, not text"


def test_a_score_that_is_not_finite_is_refused(tmp_path):
    reward, _ = _load(tmp_path, "return float('nan')")
    with pytest.raises(ValueError, match="returned nan for problem id1"):
        score_response(reward, PROBLEM, "text")


def test_a_missing_file_and_a_missing_function_are_refused(tmp_path):
    _load(tmp_path, "return 1.0")
    with pytest.raises(ValueError, match="is not a Python file"):
        load_reward(f"{tmp_path}/none.py:compute_score")
    with pytest.raises(ValueError, match="has no function other"):
        load_reward(f"{tmp_path}/my_reward.py:other")
