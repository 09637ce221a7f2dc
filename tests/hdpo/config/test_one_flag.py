"""`+use=hdpo` on a verl command: what it brings, which estimator runs, which lengths are chosen, and no silent GRPO."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from recipe.hdpo import plugin
from recipe.hdpo.config.adapt import adapt, fit_positions
from recipe.hdpo.config.checks import read_hdpo, refusals
from recipe.hdpo.search_path import HDPOSearchPath
from tests.hdpo.composed_config import CONFIG, composed

GRPO = (
    "algorithm.adv_estimator=grpo",
    "data.max_prompt_length=1024",
    "data.max_response_length=2048",
    "actor_rollout_ref.rollout.n=5",
    "actor_rollout_ref.rollout.name=vllm",
    "actor_rollout_ref.model.path=Owner/Model",
    "actor_rollout_ref.actor.use_dynamic_bsz=true",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=4096",
)
LENGTHS = (
    "data.max_prompt_length=1000",
    "data.max_response_length=2000",
    "actor_rollout_ref.rollout.max_model_len=null",
)
SGLANG = "actor_rollout_ref.rollout.name=sglang"


def verls(*overrides: str, hydra: bool = False) -> DictConfig:
    """verl's own config with overrides."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(overrides), return_hydra_config=hydra)


@pytest.fixture(scope="module")
def switched_on() -> DictConfig:
    """A GRPO command of verl's with one more flag."""
    return verls(*GRPO, "+use=hdpo", hydra=True)


def test_one_flag_brings_knobs_trainer_rollout_hook_and_callback(switched_on: DictConfig) -> None:
    assert switched_on.hdpo == OmegaConf.load(CONFIG / "hdpo/default.yaml")
    assert switched_on.trainer.v1.trainer_mode == "hdpo"
    assert "HDPOAgentLoopManager" in switched_on.actor_rollout_ref.rollout.agent.agent_loop_manager_class
    assert "ConfigCheckCallback" in switched_on.hydra.callbacks.hdpo._target_
    assert not list(refusals(switched_on))


def test_verls_default_of_two_accelerators_an_engine_is_refused_on_one_and_is_one_on_the_cpu_default() -> None:
    [message] = refusals(verls(*GRPO, "+use=hdpo", "trainer.n_gpus_per_node=1"))
    assert message.startswith("actor_rollout_ref.rollout.tensor_model_parallel_size=2: an engine of 2 accelerators")
    assert verls("+use=hdpo", "+device=cpu").actor_rollout_ref.rollout.tensor_model_parallel_size == 1


def test_the_longer_way_composes_the_same(switched_on: DictConfig) -> None:
    longer = verls("hydra.searchpath=[pkg://recipe.hdpo.config]", "+hdpo=default", "+use=hdpo", *GRPO)
    assert longer == OmegaConf.masked_copy(switched_on, [str(key) for key in switched_on if key != "hydra"])


def test_a_copy_of_the_recipes_folder_without_hydras_plug_in_has_the_flag_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """verl's collection of recipes holds the folder recipe/hdpo alone, and verl imports the plug-in from it."""
    monkeypatch.setitem(sys.modules, "hydra_plugins", None)
    kinds = Plugins.instance().plugin_type_to_subclass_list
    monkeypatch.setitem(kinds, SearchPathPlugin, [k for k in kinds[SearchPathPlugin] if k is not HDPOSearchPath])
    assert verls("+use=hdpo").use == "hdpo"  # a text, as without the group
    plugin._register_search_path(sys)
    assert verls("+use=hdpo").trainer.v1.trainer_mode == "hdpo"


def adapted(*overrides: str) -> tuple[DictConfig, list[str]]:
    config = composed(*overrides)
    return config, adapt(config, read_hdpo(config))


@pytest.mark.parametrize("asked", ["grpo", "gae", "remax"])
def test_hdpos_estimator_runs_whatever_the_command_names(asked: str) -> None:
    config, lines = adapted(f"algorithm.adv_estimator={asked}")
    assert config.algorithm.adv_estimator == "hdpo"
    assert f"algorithm.adv_estimator={asked} gives way" in lines[0] and "hdpo.adv_estimator=null" in lines[0]


def test_another_estimator_runs_where_it_is_asked_for() -> None:
    config, lines = adapted("algorithm.adv_estimator=grpo", "hdpo.adv_estimator=null")
    assert config.algorithm.adv_estimator == "grpo" and "advantages are verl's" in lines[0]
    # The leave-one-out advantage alone needs a group.
    single = ("algorithm.adv_estimator=gae", "actor_rollout_ref.rollout.n=1")
    assert "other rollouts of the same prompt" in next(refusals(composed(*single)))
    assert not list(refusals(composed(*single, "hdpo.adv_estimator=null")))


@pytest.mark.parametrize(
    ("overrides", "positions", "context", "said"),
    [
        ((), None, 5000, "up to 3000 tokens (a prompt and a solution as long as a response)"),
        ((), 32768, 5000, "up to 3000 tokens"),
        ((), 4096, 4096, "up to 2096 tokens (what the model's 4096 positions leave)"),
        (("hdpo.privileged.max_prompt_length=1500",), None, 3500, "hdpo.privileged.max_prompt_length"),
        (("+control=matched_grpo",), None, 3000, "as long as any prompt"),
        (("+control=grpo",), None, None, None),
        # SGLang's server leaves one position free.
        ((SGLANG,), None, 5001, "up to 3000 tokens"),
        ((SGLANG,), 4096, 4096, "up to 2095 tokens"),
        ((SGLANG, "hdpo.privileged.max_prompt_length=1500"), None, 3501, "up to 1500 tokens"),
    ],
)
def test_the_context_that_is_left_open_holds_a_privileged_prompt_and_a_response(
    overrides: tuple[str, ...], positions: int | None, context: int | None, said: str | None, tmp_path: Path
) -> None:
    model = f"actor_rollout_ref.model.path={_model(tmp_path, max_position_embeddings=positions)}"
    config, lines = adapted(*LENGTHS, model, *overrides)
    assert config.actor_rollout_ref.rollout.max_model_len == context
    assert [line for line in lines if "max_model_len" in line] == lines[1:] and (said is None or said in lines[1])
    assert not list(refusals(composed(*LENGTHS, model, *overrides)))
    assert adapt(config, read_hdpo(config))[1:] == []


def test_a_model_without_room_for_a_solution_is_refused_with_the_number(tmp_path: Path) -> None:
    model = f"actor_rollout_ref.model.path={_model(tmp_path, max_position_embeddings=2800)}"
    [message] = refusals(composed(*LENGTHS, model))
    assert "may have 800 tokens" in message and "of the model's 2800 positions" in message
    explicit = composed(*LENGTHS, model, "actor_rollout_ref.rollout.max_model_len=6000")
    assert "6000 is more than the model's 2800 positions" in next(refusals(explicit))


@pytest.mark.parametrize(
    ("file", "override"),
    [
        ({"max_position_embeddings": 2800}, "max_position_embeddings"),
        ({"max_position_embeddings": 2800}, "model_config.max_position_embeddings"),
        ({"text_config": {"max_position_embeddings": 2800}}, "text_config.max_position_embeddings"),
        ({}, "max_position_embeddings"),
    ],
    ids=str,
)
def test_positions_are_those_that_the_command_gives_the_model(file: dict, override: str, tmp_path: Path) -> None:
    model = f"actor_rollout_ref.model.path={_model(tmp_path, **file)}"
    for positions, context in ((32768, 5000), (4096, 4096)):
        override_config = f"+actor_rollout_ref.model.override_config.{override}={positions}"
        config, _ = adapted(*LENGTHS, model, override_config)
        assert config.actor_rollout_ref.rollout.max_model_len == context
        explicit = composed(*LENGTHS, model, override_config, "actor_rollout_ref.rollout.max_model_len=5000")
        assert [f"the model's {positions} positions" in m for m in refusals(explicit)] == [True] * (positions < 5000)


def test_positions_are_those_of_the_config_that_the_command_names(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    model = f"actor_rollout_ref.model.path={_model(tmp_path, max_position_embeddings=2800)}"
    other = f"actor_rollout_ref.model.hf_config_path={_model(tmp_path / 'config', max_position_embeddings=4096)}"
    assert adapted(*LENGTHS, model, other)[0].actor_rollout_ref.rollout.max_model_len == 4096
    (tmp_path / "config/config.json").write_text("{")
    assert next(refusals(composed(model, other))).startswith("actor_rollout_ref.model.hf_config_path: ")


def test_a_model_that_is_known_only_at_start_up_lowers_what_was_derived() -> None:
    config, _ = adapted(*LENGTHS)
    hdpo = read_hdpo(config)
    fit_positions(config, hdpo, 8192)
    assert config.actor_rollout_ref.rollout.max_model_len == 5000
    fit_positions(config, hdpo, 4096)
    assert config.actor_rollout_ref.rollout.max_model_len == 4096
    with pytest.raises(ValueError, match=r"leave 1000 tokens beside .*2000, and a privileged prompt needs 1001"):
        fit_positions(config, hdpo, 3000)
    config, _ = adapted(*LENGTHS, SGLANG)
    with pytest.raises(ValueError, match="leave 1000 tokens beside"):
        fit_positions(config, hdpo, 3001)


def test_the_teacher_pass_makes_room_itself_and_verls_own_budgets_shorten_trained_privileged_prompts() -> None:
    dynamic = "actor_rollout_ref.actor.use_dynamic_bsz=true"
    small = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4000"
    assert adapted(*LENGTHS, dynamic, small)[0].actor_rollout_ref.rollout.max_model_len == 5000
    config, lines = adapted(*LENGTHS, dynamic, small, "+control=hint_grpo")
    assert config.actor_rollout_ref.rollout.max_model_len == 4000
    assert "what actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4000 leave" in lines[1]
    [message] = refusals(composed(*LENGTHS, dynamic, small.replace("4000", "3000"), "+control=hint_grpo"))
    assert "raise the token budgets" in message


def test_vision_language_models_with_positions_of_their_own_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    rope = {"rope_scaling": {"mrope_section": [16, 24, 24]}}
    model = f"actor_rollout_ref.model.path={_model(tmp_path, text_config=rope)}"
    assert "positions of several dimensions" in next(refusals(composed(model)))
    assert not list(refusals(composed(model, "+control=grpo")))


def test_prompts_that_verl_will_cut_are_announced() -> None:
    assert "hdpo/overlong_prompts" in adapted("data.filter_overlong_prompts=false")[1][-1]
    assert len(adapted()[1]) == 1


def _model(folder: Path, **config: object) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder
