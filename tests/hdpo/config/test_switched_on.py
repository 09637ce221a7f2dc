"""A flag that switches nothing on, or in the wrong order, is no silent GRPO, and loses nothing that was chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.hdpo.config.switched_on import VERLS, lost_choices, lost_values, silent_grpo
from tests.hdpo.composed_config import composed


def test_knobs_without_hdpos_trainer_and_flags_that_became_texts_are_no_silent_grpo() -> None:
    plain = composed("~hdpo", "trainer.v1.trainer_mode=sync")
    assert silent_grpo(plain) is None and silent_grpo(composed()) is None
    for knobs in ({"topk": 64}, {}):
        with open_dict(plain):
            plain.hdpo = knobs
        message = silent_grpo(plain)
        assert message and "add +use=hdpo" in message and "trainer_mode=sync" in message
    for texts in ({"hdpo": "default", "use": "hdpo"}, {"use": "hdpo"}, {"hdpo": "default"}):
        message = silent_grpo(OmegaConf.create({**texts, "trainer": {"v1": {"trainer_mode": "sync"}}}))
        assert message and "switched nothing on" in message


SFT = "hdpo.divergence.kind=jsd is not what +control=sft sets, cross_entropy: put +use=hdpo before +control"


@pytest.mark.parametrize(
    ("overrides", "lost"),
    [
        (("+control=sft", "+use=hdpo"), [SFT]),
        (
            ("+control=[sft,step_gate]", "+use=hdpo"),
            [SFT, "hdpo.privileged.step_check=", "hdpo.privileged.gate.steps="],
        ),
        (("+control=ladder", "+use=hdpo"), ["hdpo.privileged.n=1 is not", "hdpo.privileged.source=solution is not"]),
        (("+device=cpu", "+use=hdpo", "+control=sft"), ["hdpo.poll_interval=2.0 is not what +device=cpu sets, 0.1"]),
        (("+control=sft", "+use=hdpo", "hdpo.divergence.kind=jsd"), []),
        (("+use=hdpo", "+control=[sft,step_gate]", "+device=cpu", "hdpo.poll_interval=2.0"), []),
    ],
    ids=str,
)
def test_a_control_before_the_switch_is_not_lost_silently(overrides: tuple[str, ...], lost: list[str]) -> None:
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=list(overrides), return_hydra_config=True)
        found = list(lost_choices(config))
    assert len(found) == len(lost) and all(map(str.startswith, found, lost)), found


OWN = """
hydra: {searchpath: [pkg://verl.trainer.config, pkg://recipe.hdpo.config]}
algorithm: {adv_estimator: rloo}
actor_rollout_ref: {actor: {policy_loss: {loss_mode: gspo}}}
trainer: {v1: {trainer_mode: hdpo_colocate_async}}
"""
LOSS = "actor_rollout_ref.actor.policy_loss.loss_mode"


def _lost(folder: Path, defaults: str, *overrides: str, own: str = OWN) -> tuple[DictConfig, list[str]]:
    """A config file of a user's own, and what the check finds lost."""
    (folder / "mine.yaml").write_text(f"defaults: [{defaults}]\n{own}")
    with initialize_config_dir(str(folder), version_base=None):
        config = compose("mine", overrides=list(overrides), return_hydra_config=True)
        return config, [*lost_choices(config), *lost_values(config)]


def test_what_a_config_file_chooses_is_not_lost_silently_to_the_flag_behind_it(tmp_path: Path) -> None:
    config, lost = _lost(tmp_path, "ppo_trainer, _self_", "+use=hdpo")
    assert OmegaConf.select(config, LOSS) == "hdpo"
    assert [line.partition(" of the config mine is lost to ")[0] for line in lost] == [
        f"{LOSS}=gspo",
        "trainer.v1.trainer_mode=hdpo_colocate_async",
    ]
    assert f"or add {LOSS}=gspo" in lost[0]
    # An estimator gives way to HDPO's, as is said; where it shall run, it must not be lost.
    _, lost = _lost(tmp_path, "ppo_trainer, _self_", "+use=hdpo", "hdpo.adv_estimator=null")
    assert lost[0].startswith("algorithm.adv_estimator=rloo of the config mine is lost to hdpo")
    config, lost = _lost(tmp_path, "ppo_trainer, _self_", "+use=hdpo", f"{LOSS}=gspo", "trainer.v1.trainer_mode=hdpo")
    assert lost == [] and OmegaConf.select(config, LOSS) == "gspo"
    config, lost = _lost(tmp_path, "ppo_trainer, use: hdpo, _self_", "hdpo.topk=8")
    assert lost == [] and OmegaConf.select(config, LOSS) == "gspo"


KNOBS = """
hydra: {searchpath: [pkg://verl.trainer.config, pkg://recipe.hdpo.config]}
hdpo: {distillation_loss_coef: 0.3, topk: null, privileged: {n: 4, source: [answer, solution]}}
"""


@pytest.mark.parametrize(
    ("defaults", "overrides", "lost"),
    [
        (
            "ppo_trainer, _self_",
            ("+use=hdpo",),
            ["distillation_loss_coef=0.3", "topk=null", "privileged.n=4", "privileged.source=['answer', 'solution']"],
        ),
        (
            "ppo_trainer, _self_",
            ("+use=hdpo", "hdpo.topk=64", "hdpo.privileged={n: 2}"),
            ["distillation_loss_coef=0.3"],
        ),
        (
            "ppo_trainer, hdpo: default, _self_",
            ("+use=hdpo", "+control=ladder"),
            ["distillation_loss_coef=0.3", "topk=null"],
        ),
        ("ppo_trainer, use: hdpo, _self_", ("+control=grpo",), []),
    ],
    ids=str,
)
def test_knobs_of_a_config_file_are_not_lost_silently_to_the_flag_behind_it(
    defaults: str, overrides: tuple[str, ...], lost: list[str], tmp_path: Path
) -> None:
    _, found = _lost(tmp_path, defaults, *overrides, own=KNOBS)
    begins = [line.partition(" of the config mine is lost to ")[0] for line in found]
    assert begins == [f"hdpo.{knob}" for knob in lost]
    assert found == [] or found[0].endswith("or add hdpo.distillation_loss_coef=0.3")


def test_a_group_of_ones_own_before_the_flag_loses_nothing_silently(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/some.yaml").write_text("# @package _global_\nhdpo:\n  topk: ${oc.env:NO_SUCH_VARIABLE}\n")
    _, [message] = _lost(tmp_path, "ppo_trainer, _self_", "+mine=some", "+use=hdpo", own=OWN.partition("algo")[0])
    assert message.startswith("hdpo.topk=${oc.env:NO_SUCH_VARIABLE} of the config mine is lost to 64")
    _, lost = _lost(tmp_path, "ppo_trainer, _self_", "+use=hdpo", "+mine=some", own=OWN.partition("algo")[0])
    assert lost == []


def test_a_control_in_a_files_defaults_comes_after_the_switch(tmp_path: Path) -> None:
    own = OWN.partition("algo")[0]
    _, [message] = _lost(tmp_path, "ppo_trainer, control: [sft], use: hdpo, _self_", own=own)
    assert message == SFT
    assert _lost(tmp_path, "ppo_trainer, use: hdpo, control: [sft], _self_", own=own)[1] == []


def test_a_config_file_is_looked_at_as_the_command_line_completes_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/some.yaml").write_text("a: 1\n")
    config, lost = _lost(tmp_path, 'ppo_trainer, mine: "???", _self_', "+use=hdpo", "mine=some")
    assert config.mine == {"a": 1} and lost[0].startswith(f"{LOSS}=gspo of the config mine is lost to hdpo")
    # Nothing is left to look at where HDPO's own part completes it.
    _, lost = _lost(tmp_path, 'ppo_trainer, hdpo: "???", _self_', "+use=hdpo", "hdpo=default")
    assert lost == []


def test_verls_own_config_loses_nothing_to_the_flag() -> None:
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["+use=hdpo", f"{LOSS}=gspo"], return_hydra_config=True)
        assert list(lost_values(config)) == []
        plain = compose("ppo_trainer")
    assert {key: OmegaConf.select(plain, key) for key in VERLS} == VERLS
