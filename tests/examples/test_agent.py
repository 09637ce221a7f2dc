"""The example of a tool agent: its calculator, and what its base model is taught."""

from __future__ import annotations

import random

import pytest
from transformers import PreTrainedTokenizerBase
from verl.tools.tool_registry import load_all_tools
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from examples.agent.agent_model import (
    CALCULATOR,
    HABIT,
    call_text,
    encode_conversations,
    make_agent_tokenizer,
    prompt_text,
    sample_conversation,
    tool_schemas,
    tool_turn,
    user_text,
)
from examples.agent.make_agent_model import missed_goals


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_agent_tokenizer()


def calculate(expression: str) -> str:
    [tool] = load_all_tools(tool_config_path=None, function_tool_path=str(CALCULATOR))
    return tool.fn(expression=expression)


@pytest.mark.parametrize(("expression", "result"), [("3+8+5", "16"), ("2*(7-9)", "-4"), ("12", "12")])
def test_the_calculator_calculates(expression: str, result: str) -> None:
    assert calculate(expression) == result


@pytest.mark.parametrize(
    "expression", ["", "3+", "__import__('os')", "9**9", "a+1", "1.5+1", "True+1", "1+" * 150 + "1", "(" * 90 + "1"]
)
def test_the_calculator_refuses_what_is_no_sum_product_or_difference_of_whole_numbers(expression: str) -> None:
    with pytest.raises(ValueError):
        calculate(expression)


def test_the_taught_response_is_what_verls_tool_agent_makes_of_it_token_by_token(tokenizer) -> None:
    builder = create_continuous_token_builder(
        tokenizer, hf_model_type="qwen2", chat_template_kwargs={}, mm_processor_kwargs={}, processor=None
    )
    ids, labels = encode_conversations(4, True, 1, random.Random(3), tokenizer)
    terms, pieces = sample_conversation(4, True, random.Random(3))
    user = {"role": "user", "content": user_text(terms, True)}
    function = {"name": "calculate", "arguments": {"expression": "+".join(map(str, terms))}}
    said = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    answered = {"role": "tool", "content": calculate(function["arguments"]["expression"])}
    prompt = builder.build_initial_tokens([user], tools=tool_schemas())
    call = tokenizer(pieces[0][0])["input_ids"]
    context = builder.merge_context_tokens([user, said], [user, said, answered], prompt + call, tools=tool_schemas())
    last = tokenizer(pieces[2][0])["input_ids"]
    assert ids[0].tolist() == context.token_ids + last
    own = call + [-100] * (len(context.token_ids) - len(prompt) - len(call)) + last
    assert labels[0].tolist() == [-100] * len(prompt) + own
    assert tokenizer.decode(prompt) == prompt_text(terms, True, tokenizer)
    # A call that the chat template renders is the one that is taught.
    assert call_text(terms) in tokenizer.apply_chat_template([user, said], tools=tool_schemas(), tokenize=False)


@pytest.mark.parametrize("privileged", [True, False])
@pytest.mark.parametrize("size", [2, 3, 6])
def test_the_habit_is_to_ask_for_three_numbers_unless_the_solution_is_shown(size: int, privileged: bool) -> None:
    terms, pieces = sample_conversation(size, privileged, random.Random(0))
    asked = terms if privileged else terms[:HABIT]
    assert [is_own for _, is_own in pieces] == [True, False, True] and len(terms) == size
    assert pieces[0][0].startswith(call_text(asked)) and pieces[1][0] == tool_turn(str(sum(asked)))


def test_goals_of_a_base_model_are_named_where_they_are_missed() -> None:
    good = {"plain_greedy": 1.0, "plain_sampled": 0.0, "privileged_sampled": 0.9}
    assert missed_goals([good | {"terms": 5}, good | {"terms": 2}]) == []
    bad = {"plain_greedy": 0.5, "plain_sampled": 0.5, "privileged_sampled": 0.1}
    assert len(missed_goals([bad | {"terms": 5}])) == len(missed_goals([bad | {"terms": 2}])) == 2
