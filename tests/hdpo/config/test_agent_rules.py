"""Agent loops in a config: which are known, and what is said where a switch changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recipe.hdpo.config.agent_rules import AGENT, LOOPS, TURNS, agents_without_class, unknown_agents
from recipe.hdpo.config.checks import refusals, warnings_of
from tests.hdpo.composed_config import composed

# Of an agent loop that no other test registers with verl.
NAME = "loop_of_these_tests"
TOOL = (f"{TURNS}.enable=true", f"{AGENT}=tool_agent")


def test_verls_agents_and_those_of_the_users_file_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "loops.yaml"
    OmegaConf.save([{"name": NAME, "_target_": "a.B"}], file)
    own = (f"{AGENT}={NAME}", f"{LOOPS}={file}")
    for overrides in (TOOL, own, (f"{AGENT}=single_turn_agent",)):
        assert list(refusals(composed(*overrides))) == []
    [message] = refusals(composed(f"{AGENT}={NAME}"))
    assert message.startswith(f"{AGENT} is {NAME}, and verl knows the agent loops ") and LOOPS in message
    assert unknown_agents(composed(*own), [NAME, "tool_agent"]) is None
    assert "theirs, and verl knows" in str(unknown_agents(composed(*own), [NAME, "theirs"]))


def test_loops_and_parsers_of_modules_that_verl_imports_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.experimental.agent_loop.tool_parser import ToolParser

    # What a test registers is gone after it.
    monkeypatch.setattr(ToolParser, "_registry", dict(ToolParser._registry))
    monkeypatch.setitem(_agent_loop_registry, "imported_loop", {})
    monkeypatch.delitem(_agent_loop_registry, "imported_loop")
    monkeypatch.syspath_prepend(tmp_path)
    for name, code in (
        ("loops_of_these_tests", "agent_loop import register\n@register('imported_loop')\nclass L: pass"),
        ("forms_of_these_tests", "tool_parser import ToolParser\n@ToolParser.register('imported')\nclass P: pass"),
    ):
        (tmp_path / f"{name}.py").write_text(f"from verl.experimental.agent_loop.{code}\n")
    library, own = "actor_rollout_ref.model.external_lib", f"{AGENT}=imported_loop"
    assert library in next(refusals(composed(own)))
    assert "ModuleNotFoundError" in next(refusals(composed(own, f"{library}=no_such_module")))
    assert list(refusals(composed(own, f"{library}=loops_of_these_tests"))) == []
    form = (*TOOL, f"{TURNS}.format=imported")
    assert "verl parses" in next(refusals(composed(*form)))
    assert list(refusals(composed(*form, f"{library}=[forms_of_these_tests]"))) == []


def test_a_form_of_calls_that_verl_does_not_parse_is_refused_where_calls_are_parsed() -> None:
    wrong = f"{TURNS}.format=mine"
    [message] = refusals(composed(*TOOL, wrong))
    assert message.startswith(f"{TURNS}.format=mine is no form of tool calls that verl parses") and "hermes" in message
    assert list(refusals(composed(wrong))) == []


def test_several_turns_of_a_single_turn_agent_are_said_to_be_one() -> None:
    [message] = warnings_of(composed(TOOL[0]))
    assert message.startswith(f"{TURNS}.enable=true changes nothing by itself") and AGENT in message
    assert list(warnings_of(composed(*TOOL))) == []


def test_an_agent_loop_that_a_function_makes_is_refused_where_there_are_privileged_rollouts(tmp_path: Path) -> None:
    file, own = tmp_path / "loops.yaml", "tests.hdpo.rollout.own_agents"
    loops = [{"name": NAME, "_target_": f"{own}.make_asking"}, {"name": f"{NAME}_2", "_target_": f"{own}.Asking"}]
    OmegaConf.save(loops, file)
    by_function, by_class = ((f"{AGENT}={loop['name']}", f"{LOOPS}={file}") for loop in loops)
    [message] = refusals(composed(*by_function))
    assert message.startswith(f"{AGENT} is {NAME}, which {own}.make_asking makes, a function:")
    assert f"name that class in {file}" in message
    assert list(refusals(composed(*by_class))) == list(refusals(composed(*by_function, "hdpo.privileged.n=0"))) == []
    assert agents_without_class(composed(*by_class), [NAME]) and not agents_without_class(composed(TOOL[1]), [NAME])
