"""What the start-up check says of privileged prompts, under chat templates that behave as those of known models do."""

from __future__ import annotations

import functools
import logging
import re
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from omegaconf import DictConfig

from examples.agent.agent_model import CALCULATOR
from examples.demo.sums_model import CHATML, make_tokenizer
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.checks import check_config
from recipe.hdpo.rollout import prompt_check
from recipe.hdpo.rollout.chat_template import (
    NotRendered,
    make_privileged_token_builder,
    make_token_builder,
    missing_chat_template,
    render,
)
from recipe.hdpo.rollout.prompt_check import check_prompts
from tests.hdpo.composed_config import composed

# As Qwen2.5's: a system prompt of its own where the messages have none.
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nReason, and put it into \\boxed{}.<|im_end|>\n{% endif %}"
    + CHATML
)
# As Gemma's: roles alternate, and none is the system.
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<turn>' + m.role + '\n' + m.content|trim + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
# As Llama 3's: contents are trimmed.
TRIMS = (
    "{{ bos_token }}{% for m in messages %}{{ '<turn>' + m.role + '\n\n' + m.content|trim + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n\n' }}{% endif %}"
)
# As Mistral's: the system message goes into the last user turn.
MERGES = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}{{ bos_token }}"
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[INST] {% if loop.last and system %}"
    "{{ system + '\n\n' }}{% endif %}{{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
# As Llama 2's.
WRAPS = MERGES.replace("{{ system + '\n\n' }}", "{{ '<<SYS>>\n' + system + '\n<</SYS>>\n\n' }}").replace(
    "last", "first"
)
# As Phi 3's: no BOS, and a special token for each role.
TOKEN_PER_ROLE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
DROPS_SYSTEM = CHATML.replace("in messages", "in messages if message.role != 'system'")
STRIPS_THINKING = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
ESCAPES = CHATML.replace("message['content']", "message['content']|e|string")
CUTS = CHATML.replace("message['content']", "message['content'][:60]")
LOSES_BOS = "{% if messages[0].role != 'system' %}{{ bos_token }}{% endif %}" + CHATML
# As gpt-oss's: how much to reason is said in a system turn.
EFFORT = "{% if effort is defined %}{{ '<|system|>Effort: ' + effort + '<end>' }}{% endif %}" + CHATML
# As Qwen3's: an empty thought begins the response.
THINKS = CHATML + "{% if add_generation_prompt and not think %}{{ '<think></think>' }}{% endif %}"
LOSES_ITS_END = CHATML.replace("{% if add_gen", "{% if messages[0].role != 'system' and add_gen")

SYSTEM = "hdpo.privileged.placement=system"
ROW = {
    "prompt": [{"role": "user", "content": "What is 2 + 3?"}],
    "extra_info": {"solution": "2 + 3 = 5\n#### 5", "index": 7},
    "reward_model": {"ground_truth": "5"},
}
WITH_SYSTEM = ROW | {"prompt": [{"role": "system", "content": "Be brief."}, *ROW["prompt"]]}  # type: ignore[misc]
SHOTS = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "<think>hm</think>2"}]
WITH_SHOTS = ROW | {"prompt": [*SHOTS, *ROW["prompt"]]}  # type: ignore[misc]


@functools.cache
def _tokenizer() -> Any:
    from transformers import AddedToken

    tokenizer = make_tokenizer()
    words = ["<s>", "<turn>", "<end>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer.add_tokens([AddedToken(word, special=True) for word in words])
    tokenizer.bos_token = "<s>"
    return tokenizer


@functools.cache
def _config(*overrides: str) -> tuple[DictConfig, HDPOConfig]:
    config = composed(*overrides)
    return config, check_config(config)


def _builder(template: str | None, *overrides: str) -> Any:
    _tokenizer().chat_template = template
    config, _ = _config(*overrides)
    return make_token_builder(config, _tokenizer(), None, SimpleNamespace(model_type="of the test"))


def check(template: str, *overrides: str, rows: Any = (ROW,)) -> None:
    dataset = SimpleNamespace(dataframe=Dataset.from_list(list(rows)))
    builder, (config, hdpo) = _builder(template, *overrides), _config(*overrides)
    own = make_privileged_token_builder(config, hdpo, _tokenizer(), None, SimpleNamespace(model_type="of the test"))
    check_prompts(config, hdpo, builder, dataset, own)


@pytest.mark.parametrize("row", [ROW, WITH_SYSTEM, WITH_SHOTS], ids=["plain", "system", "shots"])
@pytest.mark.parametrize("placement", ["user", "system"])
@pytest.mark.parametrize(
    "template", [CHATML, TRIMS, MERGES, WRAPS, TOKEN_PER_ROLE], ids=["chatml", "trims", "merges", "wraps", "roles"]
)
def test_templates_that_show_all_of_it_are_accepted_and_nothing_is_said(
    template: str, placement: str, row: dict, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check(template, f"hdpo.privileged.placement={placement}", rows=[row])
    assert "privileged prompt" not in caplog.text


@pytest.mark.parametrize(
    "template", [NO_SYSTEM, DROPS_SYSTEM, LOSES_BOS, LOSES_ITS_END, STRIPS_THINKING, DEFAULT_SYSTEM]
)
def test_with_the_users_placement_their_turn_is_as_good_as_the_plain_prompts(
    template: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check(template)
    assert "privileged prompt" not in caplog.text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (NO_SYSTEM, r"is refused by the chat template \(TemplateError: System role not supported\).*BOS"),
        (DROPS_SYSTEM, "is the plain prompt, since the chat template drops the system turn; teacher = student"),
        (
            LOSES_BOS,
            "does not begin with <s>, as the plain prompt does, but with '<|im_start|>system".replace("|", r"\|"),
        ),
        (LOSES_ITS_END, "ends in .*, and the plain prompt in .*assistant"),
        (CUTS, "does not hold the solution in the system turn whole"),
        (ESCAPES, "does not hold the solution in the system turn whole.*&lt;"),
        (STRIPS_THINKING, "does not hold the solution in the system turn whole"),
    ],
    ids=["refuses", "drops", "no BOS", "no end", "cuts", "escapes", "strips thinking"],
)
def test_templates_that_spoil_a_system_turn_are_refused_with_the_reason_and_the_way_out(
    template: str, said: str
) -> None:
    row = ROW | {"extra_info": {"solution": "<think>2 < 3</think> so 5\n#### 5", "index": 7}}
    with pytest.raises(ValueError, match=rf"(?s)the privileged prompt of training row 0 \(index 7\) {said}") as error:
        check(template, SYSTEM, rows=[row])
    assert "set hdpo.privileged.placement=user" in str(error.value)


@pytest.mark.parametrize("template", [CUTS, ESCAPES, STRIPS_THINKING], ids=["cuts", "escapes", "strips thinking"])
def test_templates_that_change_the_users_turn_are_refused_whatever_the_placement(template: str) -> None:
    row = ROW | {"extra_info": {"solution": "<think>2 < 3</think> so 5\n#### 5"}}
    with pytest.raises(ValueError, match=r"does not hold the user's message whole.*custom_chat_template") as error:
        check(template, rows=[row])
    assert "placement" not in str(error.value)


def test_verl_makes_a_prompt_without_bos_of_what_the_template_refuses() -> None:
    """Why it is refused; when verl's second try goes, the check's message can."""
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "P"}]
    builder = _builder(NO_SYSTEM)
    assert _tokenizer().decode(builder.build_initial_tokens(messages)) == (
        "<turn>system\nS<end>\n<turn>user\nP<end>\n<turn>model\n"
    )
    with pytest.raises(NotRendered, match="System role not supported"):
        render(builder, messages)
    assert render(builder, messages[1:]).text == "<s><turn>user\nP<end>\n<turn>model\n"


def test_a_row_whose_plain_prompt_the_template_refuses_is_named() -> None:
    rows = [ROW, WITH_SYSTEM | {"extra_info": {"solution": "5", "index": 31}}]
    with pytest.raises(
        ValueError, match=r"training row 1 \(index 31\) cannot be made.*System role not supported.*row's messages"
    ):
        check(NO_SYSTEM, rows=rows)


def test_a_default_system_prompt_that_only_the_plain_prompt_has_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check(DEFAULT_SYSTEM, SYSTEM, rows=[ROW, ROW, ROW])
    [record] = [r for r in caplog.records if "privileged prompt" in r.getMessage()]
    assert "lacks what the chat template adds to the plain prompt: 'Reason, and put it into" in record.getMessage()
    caplog.clear()
    check(DEFAULT_SYSTEM, SYSTEM, rows=[WITH_SYSTEM])
    assert "lacks" not in caplog.text


OPENS_THOUGHT = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
REWARD = "reward.custom_reward_function.path="
OPENED = "+reward.custom_reward_function.reward_kwargs.thinking_opened=true"


@pytest.mark.parametrize(
    ("template", "overrides", "warns"),
    [
        (OPENS_THOUGHT, f"{REWARD}pkg://recipe.hdpo.reward", True),
        (OPENS_THOUGHT, f"{REWARD}/there/recipe/hdpo/gym_reward.py", True),
        (OPENS_THOUGHT, f"{REWARD}pkg://recipe.hdpo.reward {OPENED}", False),
        (OPENS_THOUGHT, f"{REWARD}pkg://mine.reward", False),
        (OPENS_THOUGHT.replace("<think>\n", "<think></think>\n"), f"{REWARD}pkg://recipe.hdpo.reward", False),
        (CHATML, f"{REWARD}pkg://recipe.hdpo.reward", False),
    ],
)
def test_a_template_that_opens_a_thought_is_named_where_the_reward_does_not_know_of_it(
    template: str, overrides: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check(template, *overrides.split(), rows=[ROW, ROW])
    said = [r.getMessage() for r in caplog.records if "open think tag" in r.getMessage()]
    assert len(said) == warns and all("thinking_opened=true" in text for text in said)


def test_a_text_that_the_template_adds_to_the_privileged_prompt_alone_is_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adds = "{% if messages[0].role == 'system' %}Follow the next rules with care. {% endif %}" + CHATML
    check(adds, SYSTEM)
    assert "has what the chat template does not add to the plain prompt: 'Follow the next rules" in caplog.text


def test_one_privileged_prompt_is_printed_as_the_model_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    check(CHATML, "hdpo.privileged.template='{{ problem }} It is {{ solution }}'", rows=[ROW, WITH_SYSTEM])
    out = capsys.readouterr().out
    prompt = "<|im_start|>user\nWhat is 2 + 3? It is 2 + 3 = 5\n#### 5<|im_end|>\n<|im_start|>assistant\n"
    assert (
        f"training row 0 (index 7), between two lines:\n{'-' * 60}\n{prompt}\n{'-' * 60}" in out
        and out.count("<|im_end|>") == 1
    )
    long = ROW | {"extra_info": {"solution": "so " * 5000}}
    check(CHATML, rows=[long])
    out = capsys.readouterr().out
    assert 4000 < len(out) < 4300 and " characters ...]" in out


def test_the_options_of_the_chat_template_are_those_of_the_rollouts(capsys: pytest.CaptureFixture[str]) -> None:
    thinks = CHATML + "{% if not think %}{{ '<think></think>' }}{% endif %}"
    for options, shown in ((["+data.apply_chat_template_kwargs.think=true"], False), ([], True)):
        check(thinks, *options)
        assert ("<think></think>" in capsys.readouterr().out) == shown


def test_of_very_many_rows_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_check, "MAX_READ", 5)
    odd = ROW | {"extra_info": {"solution": "</think>" + "long " * 99, "index": 1}}
    for place, seen in ((0, True), (1, False), (2, True), (9, False)):
        rows = [odd if i == place else ROW for i in range(10)]
        if seen:
            with pytest.raises(ValueError, match=f"training row {place} "):
                check(STRIPS_THINKING, rows=rows)
        else:
            check(STRIPS_THINKING, rows=rows)


@pytest.mark.parametrize("place", [0, 500, 999])
def test_the_longest_row_the_first_with_markup_and_every_order_of_roles_are_looked_at(place: int) -> None:
    rows: list[dict] = [ROW] * 1000
    check(STRIPS_THINKING, rows=rows)
    for odd in ("</think>" + "long " * 99, "</think>"):
        changed = [*rows[:place], ROW | {"extra_info": {"solution": f"5 {odd}", "index": place}}, *rows[place + 1 :]]
        with pytest.raises(ValueError, match=rf"training row {place} \(index {place}\) does not hold"):
            check(STRIPS_THINKING, rows=changed)
    with pytest.raises(ValueError, match=r"cannot be made.*System role"):
        check(NO_SYSTEM, rows=[*rows[:place], WITH_SYSTEM, *rows[place + 1 :]])


def test_rows_that_show_nothing_or_are_no_chats_are_left_to_the_check_of_the_data() -> None:
    check(CUTS, rows=[ROW | {"extra_info": {"solution": ""}}])
    check(CHATML, rows=[ROW | {"prompt": "2 + 3?"}])
    check(CUTS, rows=[ROW | {"prompt": [{"role": "system", "content": "2 + 3?"}]}, ROW | {"prompt": []}])
    check_prompts(*_config(), None, SimpleNamespace())


def test_a_template_that_fails_on_a_real_row_names_the_row() -> None:
    template = """hdpo.privileged.template="{{ problem }} {{ solution.split('####')[1] }}\""""
    check(CHATML, template)
    with pytest.raises(ValueError, match=r"cannot be rendered for training row 0: UndefinedError"):
        check(CHATML, template, rows=[ROW | {"extra_info": {"solution": "5"}}])


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template, by which prompts are made"),
        ("{{ raise_exception('never') }}", r"cannot make a prompt of one user message \(TemplateError: never\)"),
        ("{% for m in messages %}", "TemplateSyntaxError"),
    ],
)
def test_a_tokenizer_that_makes_no_prompt_is_named_with_the_way_out(template: str | None, said: str) -> None:
    missing = missing_chat_template(_builder(template))
    assert missing is not None and re.search(said, missing) and "custom_chat_template" in missing
    assert missing_chat_template(_builder(CHATML)) is None
    assert "apply_chat_template" not in vars(_tokenizer())


def test_prompts_are_looked_at_with_the_tools_that_the_rows_agent_shows(capsys: pytest.CaptureFixture) -> None:
    """A template that leaves the system message out where it shows tools, and nowhere else."""
    without = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}"
    template = f"{{% if tools %}}<turn>{{{{ tools[0].function.name }}}}<end>{without}{{% endif %}}" + CHATML
    rollout = "actor_rollout_ref.rollout"
    agent = (
        f"{rollout}.agent.default_agent_loop=tool_agent",
        f"{rollout}.multi_turn.function_tool_path={CALCULATOR}",
    )
    check(template, *agent)
    assert "<turn>calculate<end><|im_start|>user\n" in capsys.readouterr().out
    check(template, SYSTEM)
    with pytest.raises(ValueError, match="drops the system turn; teacher = student"):
        check(template, SYSTEM, *agent)
    check(template, SYSTEM, *agent, rows=[ROW | {"agent_name": "single_turn_agent"}])


OWN_OPTION = "+hdpo.privileged.chat_template_kwargs"


def test_privileged_prompts_are_made_with_options_of_their_own_on_top_of_verls(
    capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    check(EFFORT, f"{OWN_OPTION}.effort=low", "+data.apply_chat_template_kwargs.effort=high")
    assert "<|system|>Effort: low<end><|im_start|>user\nWhat is" in capsys.readouterr().out
    check(EFFORT, f"{OWN_OPTION}.effort=low", "+data.apply_chat_template_kwargs.other=1")
    assert "Effort: low" in capsys.readouterr().out and "privileged prompt" not in caplog.text


def test_options_by_which_the_two_prompts_end_differently_are_refused_unless_both_have_them() -> None:
    with pytest.raises(
        ValueError, match=r"row 0 \(index 7\) ends in .*assistant\\n', and the plain prompt in .*<think>"
    ) as e:
        check(THINKS, f"{OWN_OPTION}.think=true")
    assert "data.apply_chat_template_kwargs too, or leave it out" in str(e.value)
    for option in ("data.apply_chat_template_kwargs.think", "data.apply_chat_template_kwargs.effort"):
        value = "true" if option.endswith("think") else "high"
        check(EFFORT + THINKS.removeprefix(CHATML), f"{OWN_OPTION}.effort=low", f"+{option}={value}")


def test_options_that_the_chat_template_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match=r"chat_template_kwargs=\{'efort': 'low'\} changes no privileged prompt.*name"):
        check(EFFORT, f"{OWN_OPTION}.efort=low")
    same = ("+data.apply_chat_template_kwargs.effort=low", f"{OWN_OPTION}.effort=low")
    with pytest.raises(ValueError, match="changes no privileged prompt"):
        check(EFFORT, *same)


def test_options_of_rollouts_that_show_nothing_are_refused() -> None:
    control = ("hdpo.privileged.source=problem", "hdpo.privileged.use=replace")
    with pytest.raises(ValueError, match="with source=problem: those rollouts are of the plain prompt"):
        check(EFFORT, f"{OWN_OPTION}.effort=low", *control)


def test_every_rung_of_a_ladder_is_looked_at_and_printed_once(capsys: pytest.CaptureFixture) -> None:
    ladder = ("hdpo.privileged.source=[answer,solution]", "hdpo.privileged.n=2")
    without = ROW | {"extra_info": {"solution": None, "index": 3}}
    check(CHATML, *ladder, rows=[without, ROW, ROW])
    out = capsys.readouterr().out
    assert out.count("The privileged prompt of training row") == 2
    assert "training row 0 (index 3) (answer), between" in out and "training row 1 (index 7) (solution), between" in out
    odd = ROW | {"extra_info": {"solution": "<think></think>5"}}
    with pytest.raises(ValueError, match=r"row 0 \(solution\) does not hold the user's message whole"):
        check(STRIPS_THINKING, *ladder, rows=[odd])
