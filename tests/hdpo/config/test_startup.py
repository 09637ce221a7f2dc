"""What the trainer refuses when it sees the data and the model, before any worker starts."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from omegaconf import OmegaConf

from recipe.hdpo.config.agent_rules import LOOPS
from recipe.hdpo.config.checks import check_config
from recipe.hdpo.config.startup import check_data, check_model
from tests.hdpo.composed_config import composed

ROW = {"extra_info": {"solution": "1+1=2"}, "reward_model": {"ground_truth": "2"}}


def check(rows: list[dict[str, Any]], *overrides: str) -> None:
    config = composed("data.train_files=train.parquet", *overrides)
    check_data(config, check_config(config), SimpleNamespace(dataframe=Dataset.from_list(rows)))


def test_rows_with_solutions_are_accepted() -> None:
    check([ROW, ROW])


def test_data_without_any_solution_is_refused_with_the_place_that_was_looked_at() -> None:
    with pytest.raises(ValueError, match=r"train\.parquet has a text at extra_info\.solution"):
        check([{"extra_info": {"solution": " "}}, {"extra_info": {"solution": ""}}])
    with pytest.raises(ValueError, match=r"hdpo\.privileged\.answer_key"):
        check([{"extra_info": {"solution": "1"}}], "hdpo.privileged.source=answer")


def test_rows_without_a_solution_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check([ROW, {"extra_info": {"solution": ""}}, ROW, {"extra_info": {"solution": None}}])
    assert "2 of 4 training rows" in caplog.text
    assert "First: row 1, row 3" in caplog.text


def test_solutions_that_are_no_texts_are_counted_by_kind_and_the_way_out_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lists = [{"extra_info": {"solution": ["step 1", "step 2"]}}, {"extra_info": {"solution": []}}]
    with pytest.raises(
        ValueError, match=r"a list of texts in 1, an empty list in 1; hdpo\.privileged\.join_texts=true"
    ):
        check(lists)
    with caplog.at_level(logging.WARNING):
        check(lists, "hdpo.privileged.join_texts=true")
        check([ROW, {"extra_info": {"solution": "\u200b"}}, {"extra_info": {"solution": None}}])
    assert "1 of 2 training rows have no text at extra_info.solution (there stands an empty list in 1)" in caplog.text
    assert (
        "2 of 3 training rows have no text at extra_info.solution (there stands a blank text in 1, nothing in 1)"
        in (caplog.text)
    )
    numbers = [{"extra_info": {"solution": value}} for value in (float("nan"), 1.5)]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check(numbers)
    assert "(there stands nan in 1)" in caplog.text


def test_rows_are_named_by_their_own_index_where_they_have_one(caplog: pytest.LogCaptureFixture) -> None:
    rows = [ROW | {"extra_info": {"solution": text, "index": i}} for i, text in ((7, "1+1=2"), (812, ""))]
    with caplog.at_level(logging.WARNING):
        check(rows)
    assert "First: row 1 (index 812)" in caplog.text


def test_messages_made_of_parts_are_refused() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "1+1?"}]}]
    check([ROW | {"prompt": [{"role": "user", "content": "1+1?"}]}])
    with pytest.raises(ValueError, match=r"content is a list of parts in 1 \(row 0\): make the content"):
        check([ROW | {"prompt": parts}])
    check([ROW | {"prompt": parts}], "+control=grpo")


@pytest.mark.parametrize("control", ["grpo", "matched_grpo"])
def test_controls_that_show_nothing_need_no_solution(control: str) -> None:
    check([{"extra_info": {"solution": ""}}], f"+control={control}")


def test_multi_modal_rows_and_agents_that_verl_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.image_key"):
        check([{**ROW, "images": [1]}])
    with pytest.raises(ValueError, match=r"'agent_name' names my_agent, and verl knows the agent loops .*tool_agent"):
        check([{**ROW, "agent_name": name} for name in ("tool_agent", "my_agent")])
    check([{**ROW, "agent_name": name} for name in ("tool_agent", "single_turn_agent")])


def test_a_row_of_an_agent_that_a_function_makes_is_refused_where_there_are_privileged_rollouts(tmp_path: Path) -> None:
    name, maker = "loop_of_a_column", "tests.hdpo.rollout.own_agents.make_asking"
    OmegaConf.save([{"name": name, "_target_": maker}], tmp_path / "loops.yaml")
    rows = [{**ROW, "agent_name": agent} for agent in ("single_turn_agent", name)]
    loops = f"{LOOPS}={tmp_path / 'loops.yaml'}"
    with pytest.raises(ValueError, match=rf"data column 'agent_name' names {name}, which {maker} makes, a function:"):
        check(rows, loops)
    check(rows, loops, "hdpo.privileged.n=0")


def _hf_config(size: int) -> SimpleNamespace:
    return SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=size))


def test_topk_above_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hdpo\.topk=64 .* 63"):
        check_model(check_config(composed()), _hf_config(63), None)
    check_model(check_config(composed("hdpo.topk=63")), _hf_config(63), None)


def test_a_whole_large_vocabulary_is_kept_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    for overrides, size in ((["hdpo.topk=null"], 9_999), ([], 151_936), (["hdpo.topk=null", "+control=sft"], 151_936)):
        check_model(check_config(composed(*overrides)), _hf_config(size), None)
    assert caplog.text == ""
    check_model(check_config(composed("hdpo.topk=null")), _hf_config(151_936), None)
    assert "keeps 1.7 MiB for every distilled token" in caplog.text


def test_vision_language_models_with_positions_of_their_own_are_refused_where_rows_are_distilled() -> None:
    processor = type("Qwen3VLProcessor", (), {"get_rope_index": None})()
    with pytest.raises(ValueError, match="Qwen3VLProcessor"):
        check_model(check_config(composed()), _hf_config(151_936), processor)
    check_model(check_config(composed("+control=grpo")), _hf_config(151_936), processor)
    check_model(check_config(composed()), _hf_config(151_936), object())


@pytest.mark.parametrize("dataset", [SimpleNamespace(), SimpleNamespace(dataframe=[{"prompt": "x"}])], ids=str)
def test_a_dataset_of_the_users_own_is_not_checked_and_that_is_said(
    dataset: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    config = composed()
    check_data(config, check_config(config), dataset)
    assert "its rows are not checked" in caplog.text
