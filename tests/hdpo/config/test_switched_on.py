"""A flag that switches nothing on, or in the wrong order, is no silent GRPO, and loses nothing that was chosen."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.hdpo.config.switched_on import VERLS, lost_choices, lost_values, silent_grpo
from tests.hdpo.composed_config import composed


def verls(*overrides: str) -> DictConfig:
    """verl's own config with overrides, and Hydra's part."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(overrides), return_hydra_config=True)


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


def test_a_control_before_the_switch_is_not_lost_silently() -> None:
    [message] = lost_choices(verls("+control=sft", "+use=hdpo"))
    assert "hdpo.divergence.kind=jsd is not what +control=sft sets, cross_entropy" in message
    kept = verls("+use=hdpo", "+control=sft", "+device=cpu", "hdpo.poll_interval=2.0")
    assert not list(lost_choices(kept)) and kept.hdpo.divergence.kind == "cross_entropy"


OWN = """
hydra: {searchpath: [pkg://verl.trainer.config, pkg://recipe.hdpo.config]}
algorithm: {adv_estimator: rloo}
actor_rollout_ref: {actor: {policy_loss: {loss_mode: gspo}}}
trainer: {v1: {trainer_mode: hdpo_colocate_async}}
"""
LOSS = "actor_rollout_ref.actor.policy_loss.loss_mode"


def _lost(folder: Path, defaults: str, *overrides: str) -> tuple[DictConfig, list[str]]:
    """A config file of a user's own, and what the check finds lost."""
    (folder / "mine.yaml").write_text(f"defaults: [{defaults}]\n{OWN}")
    with initialize_config_dir(str(folder), version_base=None):
        config = compose("mine", overrides=list(overrides), return_hydra_config=True)
        return config, list(lost_values(config))


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


def test_a_config_file_that_the_command_line_completes_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/some.yaml").write_text("a: 1\n")
    config, lost = _lost(tmp_path, 'ppo_trainer, mine: "???", _self_', "+use=hdpo", "mine=some")
    assert config.mine == {"a": 1} and lost == []


def test_verls_own_config_loses_nothing_to_the_flag() -> None:
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["+use=hdpo", f"{LOSS}=gspo"], return_hydra_config=True)
        assert list(lost_values(config)) == []
        plain = compose("ppo_trainer")
    assert {key: OmegaConf.select(plain, key) for key in VERLS} == VERLS
