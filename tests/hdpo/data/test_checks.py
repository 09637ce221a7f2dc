"""Rows as people have them, and what start-up says of each kind: where, how many, which, and the way out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.config.checks import check_config
from recipe.hdpo.config.startup import check_data
from recipe.hdpo.data import checks, prompts, solutions, truths
from recipe.hdpo.data.readers import suspects
from tests.hdpo.composed_config import composed

USER = {"role": "user", "content": "1+1?"}
GOOD: dict[str, Any] = {
    "data_source": "x",
    "prompt": [USER],
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "extra_info": {"index": 0, "solution": "1+1=2"},
}
OWN = {"reward.custom_reward_function.path": "recipe/hdpo/reward.py"}
Check = Callable[..., None]


@pytest.fixture(scope="module")
def plain() -> DictConfig:
    return composed("data.train_files=train.jsonl")


@pytest.fixture(scope="module")
def check(plain: DictConfig) -> Check:
    """Checks rows, of mixed types as a JSONL file of them has, under further settings."""

    def run(rows: list[dict[str, Any]], settings: dict[str, Any] | None = None) -> None:
        config = copy.deepcopy(plain)
        for key, value in (settings or {}).items():
            OmegaConf.update(config, key, value)
        frame = Dataset.from_list(rows, on_mixed_types="use_json")
        check_data(config, check_config(config), SimpleNamespace(dataframe=frame))

    return run


# (prompt, what is said of it)
PROMPTS: dict[str, tuple[Any, str]] = {
    "text": ("1+1?", 'a text in 1 (row 1): make it [{"role": "user", "content": TEXT}]'),
    "blank text": (" ", "a text in 1 (row 1): make it"),
    "broken JSON": ('[{"role":', "a text in 1 (row 1): make it"),
    "number": (7, "a int in 1 (row 1): make it"),
    "dict": (USER, "one message, not in a list in 1 (row 1): make it"),
    "texts": (["1+1?", "2+2?"], "a list of texts in 1 (row 1): make it"),
    "none": (None, "nothing (None) in 1 (row 1): make it"),
    "empty": ([], "an empty list in 1 (row 1): make it"),
    "nested": ([[USER]], "a message that is a list in 1 (row 1): make it"),
    "none in list": ([USER, None], "a message that is nothing (None) in 1 (row 1)"),
    "text in list": ([USER, "x"], "a message that is a str in 1 (row 1)"),
    "from": ([{"from": "human", "value": "1+1?"}], "the keys from and value in 1 (row 1): rename from to role"),
    "half": ([{"role": "user", "value": "1+1?"}], "the keys from and value in 1 (row 1): rename from to role"),
    "no role": (
        [{"content": "1+1?"}],
        "a message whose role is nothing (None) in 1 (row 1): give every message a role",
    ),
    "role 3": ([{"role": 3, "content": "1+1?"}], "a message whose role is a int in 1 (row 1)"),
    "no content": ([{"role": "user"}], "a message whose content is nothing (None) in 1 (row 1): make the content"),
    "content none": ([{"role": "user", "content": None}], "a message whose content is nothing (None) in 1 (row 1)"),
    "content 5": ([{"role": "user", "content": 5}], "a message whose content is a int in 1 (row 1)"),
    "parts": (
        [{"role": "user", "content": [{"type": "text", "text": "1+1?"}]}],
        "a message whose content is a list of parts in 1 (row 1): make the content",
    ),
    "assistant none": ([USER, {"role": "assistant", "content": None}], "a message whose content is nothing (None)"),
    "system alone": ([{"role": "system", "content": "x"}], "no user's message (roles: system) in 1 (row 1): give the"),
    "human": ([{"role": "human", "content": "x"}], "no user's message (roles: human) in 1 (row 1): give the"),
}


@pytest.mark.parametrize("prompt, said", PROMPTS.values(), ids=PROMPTS)
def test_a_prompt_that_cannot_be_used_is_named_with_its_column_and_the_way_out(
    check: Check, prompt: Any, said: str
) -> None:
    with pytest.raises(ValueError) as error:
        check([GOOD, GOOD | {"prompt": prompt, "extra_info": {"index": 1, "solution": "s"}}])
    message = str(error.value).replace("row 1 (index 1)", "row 1")
    assert message.startswith("1 of 2 rows of data.train_files=train.jsonl cannot be used. In column 'prompt' (data.")
    assert said in message and "python -m recipe.hdpo.data --help" in message


def test_many_such_rows_are_one_error_that_counts_all_and_names_the_first_of_each_kind(check: Check) -> None:
    rows = [GOOD | {"prompt": prompt, "extra_info": None} for prompt in ["a"] * 7 + [None] * 2]
    with pytest.raises(ValueError) as error:
        check([GOOD, *rows])
    assert "9 of 10 rows" in str(error.value)
    assert "a text in 7 (row 1, row 2, row 3, row 4, row 5, ...)" in str(error.value)
    assert "nothing (None) in 2 (row 8, row 9)" in str(error.value)


# What verl takes, and HDPO can serve.
SERVED: dict[str, Any] = {
    "several turns": [{"role": "system", "content": "s"}, USER, {"role": "assistant", "content": "3"}, USER],
    "not ASCII": [{"role": "user", "content": "一加一等于多少"}],
    "a tool's call": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, USER],
    "further keys": [USER | {"name": "me", "weight": 1.5}],
    "an empty system message": [{"role": "system", "content": ""}, USER],
}


@pytest.mark.parametrize("prompt", SERVED.values(), ids=SERVED)
def test_what_verl_takes_and_hdpo_can_serve_is_not_refused(
    check: Check, prompt: Any, caplog: pytest.LogCaptureFixture
) -> None:
    check([GOOD, GOOD | {"prompt": prompt}])
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["parts", "system alone", "human"])
def test_where_nothing_is_shown_a_prompt_of_another_kind_is_left_to_the_chat_template(check: Check, name: str) -> None:
    check([GOOD, GOOD | {"prompt": PROMPTS[name][0]}], {"hdpo.privileged.n": 0})
    with pytest.raises(ValueError, match="a text in 1"):
        check([GOOD, GOOD | {"prompt": "text"}], {"hdpo.privileged.n": 0})


def test_a_user_message_that_shows_nothing_is_a_warning(check: Check, caplog: pytest.LogCaptureFixture) -> None:
    check([GOOD, GOOD | {"prompt": [USER | {"content": "\u200b "}]}])
    assert "1 of 2 rows" in caplog.text and "shows nothing (column 'prompt': row 1 (index 0))" in caplog.text


@pytest.mark.parametrize("name", ["extra_info", "reward_model"])
@pytest.mark.parametrize(
    "value, said",
    [
        ("x", "a text in 1"),
        ([1], "a list in 1"),
        (3, "a int in 1"),
    ],
)
def test_objects_as_text_are_named(check: Check, name: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError) as error:
        check([GOOD, GOOD | {name: value}])
    assert f"In column '{name}' stands {said}" in str(error.value).replace(" (index 0)", "")


def test_a_missing_extra_info_is_what_verl_takes_for_an_empty_one(check: Check) -> None:
    check([GOOD, GOOD | {"extra_info": None}])


# (ground truth, what the recipe's reward says, what is said of another reward's; "" for nothing)
TRUTHS: dict[str, tuple[Any, str, str]] = {
    "none": (None, "nothing (None)", "nothing (None)"),
    "empty": ("", "an empty text", "an empty text"),
    "blank": ("\u200b \n", "a blank text", "a blank text"),
    "list": (["2"], "a list", ""),
    "dict": ({"target": "2"}, "a dict", ""),
    "bool": (True, "a bool", ""),
    "long": ("2 " * 600, "a text of more than 1000 characters", ""),
    "number": (2, "", ""),
    "decimal": (0.5, "", ""),
}


@pytest.mark.parametrize("truth, own, other", TRUTHS.values(), ids=TRUTHS)
def test_ground_truths_are_counted_by_type(
    check: Check, truth: Any, own: str, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [GOOD, GOOD | {"reward_model": {"ground_truth": truth}}]
    check(rows, OWN)
    said = f"each is a cliff for ever: at reward_model.ground_truth stands {own} in 1 (row 1 (index 0))"
    assert (said in caplog.text) if own else caplog.text == ""
    caplog.clear()
    check(rows)
    said = (
        f"1 of 2 rows of data.train_files=train.jsonl have no ground truth (at reward_model.ground_truth stands {other}"
    )
    assert (said in caplog.text) if other else caplog.text == ""


def test_numbers_that_are_none_are_no_ground_truths(plain: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    truths_and_more = [2.5, float("nan"), float("inf"), float("-inf")]
    rows = [GOOD | {"reward_model": {"ground_truth": truth}} for truth in truths_and_more]
    config = copy.deepcopy(plain)
    config.reward.custom_reward_function.path = "recipe/hdpo/reward.py"
    check_data(config, check_config(config), SimpleNamespace(dataframe=Dataset.from_list(rows)))
    for said in ("to 3 of 4 rows", "nan in 1 (row 1 (", "inf in 1 (row 2 (", "-inf in 1 (row 3 ("):
        assert said in caplog.text


@pytest.mark.parametrize(
    "column, value", [("prompt", [USER]), ("extra_info", {"index": 1}), ("reward_model", {"ground_truth": "2"})]
)
def test_json_text_is_told_apart_from_other_texts(check: Check, column: str, value: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"In column '{column}'.* stands JSON text in 1 .*: decode it with json\.loads"
    ):
        check([GOOD | {column: json.dumps(value)}])


def test_a_row_without_a_reward_model_has_no_ground_truth(check: Check, caplog: pytest.LogCaptureFixture) -> None:
    check([GOOD, GOOD | {"reward_model": None}, GOOD | {"reward_model": {"style": "rule"}}], OWN)
    assert "stands nothing (None) in 2 (row 1 (index 0), row 2 (index 0))" in caplog.text


def test_data_of_which_no_ground_truth_is_usable_is_refused_by_the_recipes_reward_alone(
    check: Check, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [GOOD | {"reward_model": {"ground_truth": truth}} for truth in (["2"], None, True, "")]
    with pytest.raises(ValueError, match=r"no response to any row .* a list in 1 .* a bool in 1"):
        check(rows, OWN)
    check(rows)
    assert "2 of 4 rows" in caplog.text and "is not known here" in caplog.text


def test_a_reward_model_or_a_manager_of_the_users_own_needs_no_ground_truth(
    check: Check, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [GOOD | {"reward_model": "text"}]
    check(rows, {"reward.reward_manager.source": "importlib"})
    own = {"enable": True, "enable_resource_pool": True, "rollout.free_cache_engine": False}
    check(rows, {f"reward.reward_model.{name}": value for name, value in own.items()})
    assert caplog.text == ""


@pytest.mark.parametrize(
    "path, own",
    [
        ("recipe/hdpo/reward.py", True),
        ("file://recipe/hdpo/reward.py", True),
        ("pkg://recipe.hdpo.reward", True),
        ("pkg://recipe/hdpo/reward", True),
        ("tests/e2e/reward.py", False),
        (None, False),
    ],
)
def test_the_recipes_own_reward_is_known_by_its_file(plain: DictConfig, path: str | None, own: bool) -> None:
    config = copy.deepcopy(plain)
    config.reward.custom_reward_function.path = path
    assert checks.own_reward(config) is own
    config.reward.custom_reward_function.name = "grade"
    assert not checks.own_reward(config)


def test_a_sample_of_ground_truths_is_graded_against_itself(check: Check, caplog: pytest.LogCaptureFixture) -> None:
    fine = ["18", "-1,000", r"\frac{3}{4}", "Alice", "(1, 2)", "5 cm", "50\\%", "甲", "1e-07", "k = 45, n = 2", "x = 3"]
    fine += ["12 años", "18 €", "2023-05-10"]
    faulty = [r"\frac{1}{", r"(1, \frac{)", "??", "why?", "He has 3+4=7. #### 7"]
    check([GOOD | {"reward_model": {"ground_truth": truth}} for truth in fine + faulty], OWN)
    assert "of a sample of 19 ground truths of data.train_files=train.jsonl 5 cannot be graded well" in caplog.text
    assert "what can't be read as mathematics in 4 (row 14 (index 0), row 15 (index 0), row 16" in caplog.text
    assert "what is not equal to itself as an answer in 1 (row 18" in caplog.text


def test_data_of_which_no_ground_truth_equals_itself_is_refused(check: Check) -> None:
    rows = [GOOD | {"reward_model": {"ground_truth": "$"}}] * 3
    with pytest.raises(ValueError, match=r"of a sample of 3 ground truths .* 3 cannot be graded well"):
        check(rows, OWN)


@pytest.mark.parametrize("size, taken", [(0, 0), (1, 1), (100, 100), (101, 51), (1_000_000, 100)])
def test_a_sample_has_at_most_100_positions_over_the_whole_range(size: int, taken: int) -> None:
    positions = truths.sample_positions(size, 100)
    assert len(positions) == taken and all(0 <= position < size for position in positions)
    assert size < 100 or positions[-1] >= size - size // 50


# (row's columns in place of extra_info.solution, what is advised)
ELSEWHERE: dict[str, tuple[dict[str, Any], str]] = {
    "gsm8k of verl": (
        {"extra_info": {"answer": "1+1=2\n#### 2", "question": "1+1?", "index": 0}},
        "extra_info.answer has text in 50 of 50 rows: set hdpo.privileged.solution_key=extra_info.answer",
    ),
    "a column": (
        {"solution": "1+1=2", "extra_info": {"index": 0}},
        "solution has text in 50 of 50 rows: set hdpo.privileged.solution_key=solution",
    ),
    "a list": (
        {"rationale": ["1+1=2"], "extra_info": None},
        "no column holds a worked solution; where final answers are all there is, add +control=answer_only",
    ),
    "MATH of verl": (
        {"extra_info": {"split": "train", "index": 0}},
        "no column holds a worked solution; where final answers are all there is, add +control=answer_only",
    ),
    "the final answer alone": (
        {"solution": " 2", "extra_info": {"answer": "2", "index": 0}},
        "no column holds a worked solution; where final answers are all there is, add +control=answer_only",
    ),
    "in reward_model": (
        {"reward_model": {"ground_truth": "2", "solution": "1+1=2"}, "extra_info": None},
        "reward_model.solution has text in 50 of 50 rows: set hdpo.privileged.solution_key=reward_model.solution",
    ),
}


@pytest.mark.parametrize("columns, said", ELSEWHERE.values(), ids=ELSEWHERE)
def test_where_there_is_no_solution_it_is_looked_for(check: Check, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as error:
        check([GOOD | columns] * 50)
    assert "no row of train.jsonl has a text at extra_info.solution" in str(error.value)
    assert said in str(error.value)


def test_the_place_that_is_advised_is_accepted(check: Check) -> None:
    check([GOOD | {"extra_info": {"answer": "1+1=2"}}], {"hdpo.privileged.solution_key": "extra_info.answer"})


def test_a_final_answer_is_looked_for_where_it_is_what_is_shown(check: Check) -> None:
    rows = [GOOD | {"reward_model": {"style": "rule", "ground_truth": None}, "extra_info": {"answer": "2"}}]
    with pytest.raises(ValueError, match=r"set hdpo\.privileged\.answer_key=extra_info\.answer"):
        check(rows, {"hdpo.privileged.source": "answer"})


def test_solutions_of_one_piece_have_no_prefix_and_are_counted_before_training(check: Check, caplog: Any) -> None:
    prefix = {"hdpo.privileged.source": "prefix:0.5"}
    two_lines = GOOD | {"extra_info": {"index": 7, "solution": "1+1=2\n#### 2"}}
    check([two_lines, GOOD, two_lines], prefix)
    assert "of a sample of 3 rows" in caplog.text and "1 have a solution of one line" in caplog.text
    assert "row 1 (index 0)" in caplog.text
    with pytest.raises(ValueError, match=r"2 have a solution of one line .* Set hdpo\.privileged\.source=solution"):
        check([GOOD, GOOD], prefix)
    check([GOOD], {"hdpo.privileged.source": "solution"})


def test_of_many_rows_the_first_1000_are_looked_at_and_that_is_said(check: Check) -> None:
    with pytest.raises(ValueError, match=r"extra_info\.answer has text in 1000 of the first 1000 rows: set"):
        check([GOOD | {"extra_info": {"answer": "1+1=2"}}] * 1001)


def test_half_of_the_rows_with_a_text_elsewhere_are_counted_as_half(check: Check) -> None:
    rows = [GOOD | {"extra_info": {"answer": text}} for text in ("1+1=2", None) * 25]
    with pytest.raises(ValueError, match=r"extra_info\.answer has text in 25 of 50 rows"):
        check(rows)


def test_columns_show_the_same_rows_as_python_does() -> None:
    """The look at whole columns lets no row through that the definition refuses, at any offset of a batch."""
    values = [prompt for prompt, _ in PROMPTS.values()] + list(SERVED.values())
    messages = [v for v in values if isinstance(v, list) and v and all(isinstance(m, dict) for m in v)]
    texts = [[{k: m.get(k) for k in ("role", "content")} for m in v] for v in messages]
    same_type = [v for v in texts if all(isinstance(x, (str, type(None))) for m in v for x in m.values())] + [None, []]
    rows = (same_type * 3)[1:]
    frame = Dataset.from_list([{"prompt": value} for value in rows]).select(range(2, len(rows) - 1))
    found = set(suspects(frame, "prompt", prompts._is_conversation))
    faulty = {i for i, row in enumerate(frame) if prompts.prompt_fault(row["prompt"]) is not None}
    assert faulty and faulty <= found and len(found) < len(frame)


class OwnClass:
    """A data set class of the user's own, whose file is not verl's."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Any:
        if self.items[position] is None:
            raise KeyError("question")
        return self.items[position]


@pytest.mark.parametrize(
    "item, said",
    [
        ({"raw_prompt": "1+1?"}, r"item 1 of OwnClass .* in 'raw_prompt' stands a text: make it"),
        ({"prompt": [USER]}, r"item 1 of OwnClass .* stands nothing \(None\)"),
        (None, r"item 1 of OwnClass .* cannot be read: KeyError: 'question'"),
    ],
)
def test_of_a_class_of_the_users_own_what_it_hands_to_verl_is_looked_at(
    plain: DictConfig, item: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_data(plain, check_config(plain), OwnClass([{"raw_prompt": [USER]}]))
    with pytest.raises(ValueError, match=said):
        check_data(plain, check_config(plain), OwnClass([{"raw_prompt": [USER]}, item]))


def test_names_that_are_looked_at_are_those_of_real_data_sets() -> None:
    assert {"answer", "generated_solution", "r1_solution_1", "rationale"} <= set(solutions.SOLUTION_NAMES)


def test_each_rung_of_a_ladder_needs_a_text_of_its_own(check: Check, caplog: Any) -> None:
    ladder = {"hdpo.privileged.source": ["answer", "prefix:0.5", "solution"], "hdpo.privileged.n": 3}
    two_lines = GOOD | {"extra_info": {"solution": "1+1\n=2"}}
    without = GOOD | {"extra_info": {"index": 1}}
    check([two_lines, without, GOOD], ladder)
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "no text at extra_info.solution" in line and "skip the rung prefix:0.5" in line]
    assert [line for line in said if "no text at extra_info.solution" in line and "skip the rung solution" in line]
    assert not [line for line in said if "rung answer" in line]
    with pytest.raises(ValueError, match=r"no row of .* has a text at extra_info.solution.*source=prefix:0.5"):
        check([without, without], ladder)
