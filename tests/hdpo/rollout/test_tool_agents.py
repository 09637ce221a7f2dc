"""Agents with tools and turns: a cliff is re-issued to the same agent, and what a tool wrote is marked as such."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from examples.agent.agent_model import CALCULATOR, make_agent_tokenizer, tool_turn
from recipe.hdpo import transfer
from recipe.hdpo.rollout.privileged_agent import BudgetedServer, PrivilegedPromptTooLong
from tests.hdpo.rollout import own_agents
from tests.hdpo.rollout.one_prompt import RIGHT, Model, Store, run_prompt

ROLLOUT = "actor_rollout_ref.rollout"
TOOLS = (f"{ROLLOUT}.multi_turn.function_tool_path={CALCULATOR}", "data.max_response_length=100")
OWN = "tests.hdpo.rollout.own_agents"
END = "<|im_end|>"


@pytest.fixture(scope="module")
def agent_model(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model with the agent's tokenizer and chat template."""
    folder = tmp_path_factory.mktemp("agent") / "model"
    shutil.copytree(chat_model, folder)
    make_agent_tokenizer().save_pretrained(folder)
    return folder


def call(expression: str, name: str = "calculate", argument: str = "expression") -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {{"{argument}": "{expression}"}}}}</tool_call>{END}'


def asks_for_all_when_shown(prompt: str) -> str:
    """An agent that adds two of three numbers, or with the solution all of them; then it tells the tool's answer."""
    if "<tool_response>" in prompt:
        return f"#### {prompt.rpartition('<tool_response>')[2].partition('</tool_response>')[0]}{END}"
    return call("3+8+5" if "SOLUTION" in prompt else "3+8")


SOLVED = [call("3+8+5"), tool_turn("16"), f"#### 16{END}"]


def run_agent(agent_model: Path, monkeypatch, *overrides: str, **options: Any) -> tuple[Store, Model, list[dict]]:
    settings = {"agent_name": "tool_agent", "scores": {"".join(SOLVED): 1.0}, **options}
    answer = settings.pop("answer", asks_for_all_when_shown)
    return run_prompt(agent_model, monkeypatch, answer, *TOOLS, *overrides, **settings)


def pieces(model: Model, row: Any) -> list[tuple[int, str]]:
    """A kept response in runs of equal mask."""
    found: list[tuple[int, list[int]]] = []
    for own, token in zip(row[transfer.RESPONSE_MASK].tolist(), row[transfer.RESPONSE].tolist(), strict=True):
        if not found or found[-1][0] != own:
            found.append((own, []))
        found[-1][1].append(token)
    return [(own, model.tokenizer.decode(ids)) for own, ids in found]


def test_a_cliff_goes_to_the_same_agent_with_its_tools_and_the_tools_answer_is_not_the_models(
    agent_model, monkeypatch
) -> None:
    store, model, scored = run_agent(agent_model, monkeypatch)
    record = store.record()
    assert record.cliff and (record.rollouts, record.kept, record.truncated, record.errors) == (2, 2, 0, 0)
    assert len(store.kept()) == 2 and len(model.prompts) == 2 * 5
    for key in store.kept():
        row = store.fields[key]
        assert pieces(model, row) == [(1, SOLVED[0]), (0, SOLVED[1]), (1, SOLVED[2])]
        plain, shown = (
            model.tokenizer.decode(row[name]) for name in (transfer.STUDENT_PROMPT, transfer.TEACHER_PROMPT)
        )
        assert all("calculate(expression)" in prompt and "PROBLEM" in prompt for prompt in (plain, shown))
        assert "SOLUTION" in shown and "SOLUTION" not in plain
        # Of the plain rollouts, which begin with it.
        assert model.prompts[0] == plain
    own = sum(len(model.tokenizer(text).input_ids) for text in (SOLVED[0], SOLVED[2]))
    assert record.kept_tokens == 2 * own
    assert all("SOLUTION" not in sample["prompt"] and "hdpo_privileged_rollout" not in sample for sample in scored)


def test_the_budget_of_a_privileged_response_shrinks_by_every_token_of_every_turn(agent_model, monkeypatch) -> None:
    _, model, _ = run_agent(agent_model, monkeypatch)
    used = sum(len(model.tokenizer(text).input_ids) for text in SOLVED[:2])
    shown = [limit for limit, prompt in zip(model.max_tokens, model.prompts, strict=True) if "SOLUTION" in prompt]
    assert shown == [100, 100, 100 - used, 100 - used]
    # verl's server computes those of plain rollouts.
    assert model.max_tokens.count(None) == 2 * 3


class Recorder:
    """A client of rollout servers."""

    def __init__(self) -> None:
        self.asked: list[dict] = []

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict) -> None:
        self.asked.append(sampling_params)


def test_a_turn_may_have_what_is_left_or_the_less_that_its_loop_asks_for_and_1_token_at_least() -> None:
    recorder = Recorder()
    server = BudgetedServer(recorder, longest_prompt=4, response_length=10)
    for length, params in ((4, {}), (9, {"max_tokens": 3}), (9, {"max_new_tokens": 8}), (20, {})):
        asyncio.run(server.generate("r", prompt_ids=[0] * length, sampling_params={**params, "top_p": 0.5}))
    assert recorder.asked == [{"top_p": 0.5, "max_tokens": n} for n in (10, 3, 5, 1)]
    assert server.asked is recorder.asked
    too_long = BudgetedServer(recorder, longest_prompt=4, response_length=10)
    with pytest.raises(PrivilegedPromptTooLong, match="has 5 tokens; the limit is 4"):
        asyncio.run(too_long.generate("r", prompt_ids=[0] * 5, sampling_params={}))


def test_a_privileged_prompt_that_does_not_fit_is_skipped_and_counted_never_cut(agent_model, monkeypatch) -> None:
    store, model, _ = run_agent(agent_model, monkeypatch, solution="SOLUTION " * 60)
    assert store.record().too_long == 2 and store.kept() == [] and len(model.prompts) == 2 * 3


@pytest.mark.parametrize("limit", ["data.max_response_length=19", f"{ROLLOUT}.multi_turn.max_assistant_turns=1"])
def test_an_agent_that_gets_no_answer_to_its_last_call_was_cut_off(agent_model, monkeypatch, limit: str) -> None:
    """The call ends as every turn does, and is shorter than a response may be: 10 tokens of 19; the answer has 11."""
    store, model, _ = run_agent(agent_model, monkeypatch, limit, scores={call("3+8+5"): 1.0})
    record = store.record()
    assert len(model.tokenizer(call("3+8+5")).input_ids) == 10 and len(model.prompts) == 5
    assert (record.truncated, record.privileged_truncated) == (3, 2)
    assert (record.solved_privileged, record.kept, record.skipped_truncated) == (2, 0, 2)


def test_a_response_that_the_limit_stops_in_its_last_turn_was_cut_off(agent_model, monkeypatch) -> None:
    def never_ends(prompt: str) -> str:
        return (
            asks_for_all_when_shown(prompt).removesuffix(END) + "." * 90
            if "<tool_response>" in prompt
            else (asks_for_all_when_shown(prompt))
        )

    record = run_agent(agent_model, monkeypatch, answer=never_ends)[0].record()
    assert (record.truncated, record.privileged_truncated) == (3, 2)


def test_a_re_issued_cliff_is_that_of_the_same_step_token_by_token(agent_model, monkeypatch) -> None:
    late = ("hdpo.privileged.schedule=next_step", "hdpo.rollout_seed=3")
    same, _, _ = run_agent(agent_model, monkeypatch, "hdpo.rollout_seed=3")
    asked, _, _ = run_agent(agent_model, monkeypatch, *late)
    again, model, _ = run_agent(agent_model, monkeypatch, *late, reissued=True)
    assert asked.record().cliff and asked.kept() == [] and same.record().plain_prompt_ids == []
    assert same.kept() == again.kept() and len(model.prompts) == 2 * 2
    for key in same.kept():
        assert asked.record().plain_prompt_ids == again.fields[key][transfer.STUDENT_PROMPT].tolist()
        for name in transfer.FIELDS:
            assert same.fields[key][name].tolist() == again.fields[key][name].tolist()


def test_replacing_rollouts_trains_on_the_tokens_that_the_model_wrote(agent_model, monkeypatch) -> None:
    store, model, _ = run_agent(agent_model, monkeypatch, "hdpo.privileged.use=replace")
    lengths = [len(model.tokenizer(text).input_ids) for text in SOLVED]
    expected = [1] * lengths[0] + [0] * lengths[1] + [1] * lengths[2]
    for key in ("uid-1_0_0", "uid-1_1_0"):
        assert store.fields[key]["response_mask"].tolist() == store.fields[key]["loss_mask"].tolist() == expected
        assert "SOLUTION" in model.tokenizer.decode(store.fields[key]["prompts"])


def test_the_tools_of_a_prompt_count_where_its_length_is_looked_at(agent_model, monkeypatch) -> None:
    _, model, _ = run_agent(agent_model, monkeypatch)
    length = len(model.tokenizer(model.prompts[0], add_special_tokens=False).input_ids)
    for limit, cliff in ((length, True), (length - 1, False)):
        record = run_agent(agent_model, monkeypatch, f"data.max_prompt_length={limit}")[0].record()
        assert (record.cliff, record.overlong) == (cliff, not cliff)


def test_a_rows_arguments_of_tools_and_its_choice_of_them_reach_both_kinds_of_rollouts(
    agent_model, monkeypatch, tmp_path
) -> None:
    function = {"name": "unit", "description": "u", "parameters": {"type": "object", "properties": {}, "required": []}}
    tool = {"class_name": f"{OWN}.Unit", "config": {"type": "native"}}
    OmegaConf.save(
        {"tools": [{**tool, "tool_schema": {"type": "function", "function": function}}]}, tmp_path / "t.yaml"
    )
    own_agents.Unit.made.clear()
    row = {
        "tools_kwargs": {"unit": {"create_kwargs": {"unit": "cm"}}},
        "extra_info": {"solution": "SOLUTION", "tool_selection": ["unit"]},
    }

    def answer(prompt: str) -> str:
        if "<tool_response>" not in prompt:
            return call("", "unit", "of")
        return f"#### {'16' if 'SOLUTION' in prompt else '11'}{prompt.rpartition('<tool_response>')[2][:2]}{END}"

    scores = {call("", "unit", "of") + tool_turn("cm") + f"#### 16cm{END}": 1.0}
    config = f"{ROLLOUT}.multi_turn.tool_config_path={tmp_path / 't.yaml'}"
    store, model, scored = run_agent(agent_model, monkeypatch, config, answer=answer, scores=scores, row=row)
    assert own_agents.Unit.made == [{"unit": "cm"}] * 5 and len(store.kept()) == 2
    assert all(sample["tools_kwargs"] == row["tools_kwargs"] for sample in scored)
    assert all("unit()" in prompt and "calculate" not in prompt for prompt in model.prompts)


@pytest.mark.parametrize("placement", ["user", "system"])
def test_a_tool_that_reads_the_conversation_reads_the_plain_prompt_and_its_writes_stay(
    agent_model, monkeypatch, tmp_path, placement: str
) -> None:
    function = {"name": "hint", "description": "h", "parameters": {"type": "object", "properties": {}, "required": []}}
    tool = {"class_name": f"{OWN}.Reader", "config": {"type": "native"}}
    OmegaConf.save(
        {"tools": [{**tool, "tool_schema": {"type": "function", "function": function}}]}, tmp_path / "t.yaml"
    )
    own_agents.Reader.read.clear()

    def answer(prompt: str) -> str:
        return f"#### {'16' if 'SOLUTION' in prompt else '11'}{END}" if "<tool_response>" in prompt else asked

    asked = call("", "hint", "of")
    store, model, _ = run_agent(
        agent_model,
        monkeypatch,
        f"{ROLLOUT}.multi_turn.tool_config_path={tmp_path / 't.yaml'}",
        f"hdpo.privileged.placement={placement}",
        answer=answer,
        scores={asked + tool_turn("no") + f"#### 16{END}": 1.0},
        row={"extra_info": {"solution": "SOLUTION", "tool_selection": ["hint"]}},
    )
    assert len(own_agents.Reader.read) == 5 and len(store.kept()) == 2
    for messages in own_agents.Reader.read:
        assert messages[0] == {"role": "user", "content": "PROBLEM"}
        assert [message["role"] for message in messages] == ["user", "assistant"]
    for key in store.kept():
        assert pieces(model, store.fields[key]) == [(1, asked), (0, tool_turn("no")), (1, f"#### 16{END}")]
        assert "SOLUTION" in model.tokenizer.decode(store.fields[key][transfer.TEACHER_PROMPT])
    # The model reads the whole privileged prompt in every turn.
    assert sum("SOLUTION" in prompt for prompt in model.prompts) == 2 * 2
    assert {row["extra_fields"]["note"] for key, row in store.fields.items() if key not in store.kept()} == {"noted"}


def run_own(agent_model: Path, monkeypatch, folder: Path, name: str) -> tuple[Store, Model]:
    """A loop of the user's own, from a file of agent loops."""
    loops = folder / "loops.yaml"
    OmegaConf.save([{"name": "mine", "_target_": f"{OWN}.{name}", "question": "Sure?"}], loops)

    def answer(prompt: str) -> str:
        return (RIGHT if "SOLUTION" in prompt else "wrong") + ("." if "Sure?" in prompt else "")

    scores = {f"{RIGHT}Sure?{RIGHT}.": 1.0}
    file = f"{ROLLOUT}.agent.agent_loop_config_path={loops}"
    options: dict[str, Any] = dict(agent_name="mine", answer=answer, scores=scores)
    store, model, _ = run_agent(agent_model, monkeypatch, file, **options)
    return store, model


def test_a_loop_of_the_users_own_runs_with_its_own_arguments_and_turns(agent_model, monkeypatch, tmp_path) -> None:
    own_agents.Asking.made.clear()
    store, model = run_own(agent_model, monkeypatch, tmp_path, "Asking")
    assert own_agents.Asking.made == [("Asking", "Sure?")] * 3 + [("PrivilegedAsking", "Sure?")] * 2
    assert store.record().cliff and len(store.kept()) == 2
    for key in store.kept():
        assert pieces(model, store.fields[key]) == [(1, RIGHT), (0, "Sure?"), (1, f"{RIGHT}.")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Branching", "UnusableOutput: agent loop mine returned 2 outputs for one rollout"),
        ("Drawing", "UnusableOutput: agent loop mine returned images, from a tool or the prompt"),
    ],
)
def test_several_outputs_and_pictures_are_refused_by_an_error_that_stops_the_run(
    agent_model, monkeypatch, tmp_path, name: str, said: str
) -> None:
    record = run_own(agent_model, monkeypatch, tmp_path, name)[0].record()
    assert record.first_error.startswith(said)
    assert (record.lost_rollouts, record.cliff, record.rollouts) == (3, False, 0)


def test_turns_behind_the_privileged_prompt_have_the_plain_prompts_options(agent_model, monkeypatch) -> None:
    """The student reads them behind the plain prompt."""
    from examples.agent.agent_model import make_agent_tokenizer

    said = "('(' ~ effort ~ ')' if effort is defined else '')"
    template = make_agent_tokenizer().chat_template
    marked = template.replace("<tool_response>", f"<tool_response>' + {said} + '")
    assert marked != template
    monkeypatch.setenv("MARKED_TEMPLATE", f"{{{{ {said} }}}}{marked}")
    store, model, _ = run_agent(
        agent_model,
        monkeypatch,
        "actor_rollout_ref.model.custom_chat_template=${oc.env:MARKED_TEMPLATE}",
        "+data.apply_chat_template_kwargs.effort=5",
        "+hdpo.privileged.chat_template_kwargs.effort=3",
        scores={"".join(SOLVED).replace("<tool_response>", "<tool_response>(5)").replace("#### 16", "#### (5)16"): 1.0},
    )
    assert len(store.kept()) == 2
    for key in store.kept():
        assert model.tokenizer.decode(store.fields[key][transfer.TEACHER_PROMPT]).startswith("(3)")
        assert [text for own, text in pieces(model, store.fields[key]) if not own] == [
            SOLVED[1].replace("<tool_response>", "<tool_response>(5)")
        ]
