"""The parts of the agent's base model: its chat template with tools, and the conversations it learns from.

A conversation is a call of the calculator, the tool's answer, and the response's last line:

    <tool_call>{"name": "calculate", "arguments": {"expression": "3+8+5"}}</tool_call>
    <tool_response>16</tool_response>
    #### 16

It has a bad habit: asked for a sum of more than three numbers, it gives the calculator the first three only, unless it
reads the reference solution, which makes it give all of them. So plain sums of 4 to 6 numbers are cliffs.
"""

import json
import random
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from data_preprocess.sums import problem_text, solution_text
from examples.demo.sums_model import END, PRIVILEGED_TEMPLATE, make_tokenizer, sample_terms

# One token each, and no special ones: the marks, as in Qwen2.5's tokenizer, and what stands in every conversation.
TOOL_TOKENS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
PHRASES = ["system\n", "user\n", "assistant\n", "calculate(expression)\n", "\nReference:\n"]
PHRASES += ['{"name": "calculate", "arguments": {"expression": "', '"}}']
HABIT = 3
CALCULATOR = Path(__file__).with_name("calculator.py").resolve()

# ChatML; of a tool its name and its arguments are shown, and calls are written as Hermes does.
TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% endif %}"
    "{% for tool in tools %}{{ tool.function.name + '(' + tool.function.parameters.properties | join(', ') + ')\n' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'tool' %}"
    "{{ '<|im_start|>user\n<tool_response>' + message.content + '</tool_response><|im_end|>\n' }}"
    "{% elif not (tools and loop.first and message.role == 'system') %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content }}"
    "{% for call in message.tool_calls or [] %}"
    "{{ '<tool_call>' + (call.function | tojson) + '</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_agent_tokenizer() -> PreTrainedTokenizerBase:
    """The demo's byte-level tokenizer with the tokens of tool calls."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([*TOOL_TOKENS, *PHRASES])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tool_schemas() -> list[dict]:
    """The calculator, as verl shows it to the chat template."""
    from verl.tools.tool_registry import load_all_tools

    # By its path, as verl's worker does: a tool that is imported besides would be a second one of its name.
    [tool] = load_all_tools(tool_config_path=None, function_tool_path=str(CALCULATOR))
    return [tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True)]


def call_text(terms: list[int]) -> str:
    """The call that asks for a sum."""
    call = {"name": "calculate", "arguments": {"expression": "+".join(map(str, terms))}}
    return f"<tool_call>{json.dumps(call)}</tool_call>"


def user_text(terms: list[int], privileged: bool) -> str:
    problem = problem_text(terms)
    return PRIVILEGED_TEMPLATE.format(problem=problem, solution=solution_text(terms)) if privileged else problem


def prompt_text(terms: list[int], privileged: bool, tokenizer: PreTrainedTokenizerBase) -> str:
    messages = [{"role": "user", "content": user_text(terms, privileged)}]
    return tokenizer.apply_chat_template(messages, tools=tool_schemas(), tokenize=False, add_generation_prompt=True)


def tool_turn(answer: str) -> str:
    """What stands between a call and the last line: not the model's own."""
    return f"\n<|im_start|>user\n<tool_response>{answer}</tool_response>{END}\n<|im_start|>assistant\n"


def sample_conversation(size: int, privileged: bool, rng: random.Random) -> tuple[list[int], list[tuple[str, bool]]]:
    """A sum, and the pieces of its response, each with whether the model writes it."""
    terms = sample_terms(size, rng)
    asked = terms if privileged else terms[:HABIT]
    answer = str(sum(asked))
    return terms, [(call_text(asked) + END, True), (tool_turn(answer), False), (f"#### {answer}{END}", True)]


def encode_conversations(
    size: int, privileged: bool, count: int, rng: random.Random, tokenizer: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, torch.Tensor]:
    """(input ids, labels), both (count, longest); labels are -100 for everything that the model does not write."""
    rows = []
    for _ in range(count):
        terms, pieces = sample_conversation(size, privileged, rng)
        ids: list[int] = []
        labels: list[int] = []
        for text, is_own in [(prompt_text(terms, privileged, tokenizer), False), *pieces]:
            part = tokenizer(text)["input_ids"]
            ids += part
            labels += part if is_own else [-100] * len(part)
        rows.append((ids, labels))
    longest = max(len(ids) for ids, _ in rows)
    batch = torch.full((count, longest), tokenizer.pad_token_id)
    wanted = torch.full((count, longest), -100)
    for i, (ids, labels) in enumerate(rows):
        batch[i, : len(ids)], wanted[i, : len(labels)] = torch.tensor(ids), torch.tensor(labels)
    return batch, wanted
