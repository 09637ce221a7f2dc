"""What a whole checkpoint is, from which one a run goes on, and which one is deleted."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.tracking.run_history import HISTORY_FILE
from recipe.hdpo.training import checkpoints
from recipe.hdpo.training.checkpoints import check_resume, delete_in_turn, lacks, last_whole_line, newest_whole, shards
from tests.hdpo.composed_config import composed


@pytest.fixture(scope="module")
def plain() -> DictConfig:
    return composed("trainer.nnodes=1", "trainer.n_gpus_per_node=2", "trainer.max_actor_ckpt_to_keep=2")


@pytest.fixture
def config(plain: DictConfig, tmp_path: Path) -> DictConfig:
    config = plain.copy()
    config.trainer.default_local_dir = str(tmp_path)
    return config


def write(config: DictConfig, step: int, *, mark: bool = True) -> Path:
    """A checkpoint in verl's order."""
    folder = Path(config.trainer.default_local_dir, f"global_step_{step}")
    for name in [*shards(config), "data.pt"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"weights": torch.zeros(3)}, folder / name)
    (folder / HISTORY_FILE).write_text(json.dumps({"cliffs": {}}))
    if mark:
        (folder.parent / "latest_checkpointed_iteration.txt").write_text(str(step))
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def test_a_checkpoint_has_the_model_the_optimizer_and_the_extra_state_of_every_rank(config: DictConfig) -> None:
    assert shards(config) == [
        f"actor/{kind}_world_size_2_rank_{rank}.pt" for kind in ("model", "optim", "extra_state") for rank in (0, 1)
    ]
    config.critic.enable = True
    assert len(shards(config)) == 12 and "critic/optim_world_size_2_rank_1.pt" in shards(config)
    config.critic.checkpoint.load_contents = ["model", "hf_model"]
    assert len(shards(config)) == 8


@pytest.mark.parametrize("name", ["actor/optim_world_size_2_rank_1.pt", "actor/model_world_size_2_rank_0.pt"])
def test_a_shard_that_is_missing_or_cut_short_is_named(config: DictConfig, name: str) -> None:
    folder = write(config, 1)
    assert lacks(str(folder), shards(config), marked=True) == []
    cut(folder / name)
    assert lacks(str(folder), shards(config), marked=True) == [f"the end of {name}"]
    (folder / name).unlink()
    assert lacks(str(folder), shards(config), marked=True) == [name]


def test_an_average_of_past_weights_has_to_be_whole_and_is_not_asked_of_a_run_with_another_teacher(
    config: DictConfig, caplog: pytest.LogCaptureFixture
) -> None:
    config.hdpo.teacher = "ema"
    name = "actor/hdpo_ema_world_size_2_rank_1.pt"
    assert name in shards(config)
    older, last = write(config, 10), write(config, 20)
    cut(last / name)
    assert check_resume(config) == str(older)
    assert f"it lacks the end of {name}" in caplog.text
    # Whoever changes the teacher in the middle is told by loading which average is not there.
    (last / name).unlink()
    assert check_resume(config) is None
    assert lacks(str(last), shards(config), marked=False) == [name]
    config.hdpo.divergence.kind = "cross_entropy"
    assert name not in shards(config)


def test_only_a_checkpoint_with_verls_mark_may_be_without_data_state_and_none_may_have_half_a_file(
    config: DictConfig,
) -> None:
    folder = write(config, 1)
    cut(folder / "data.pt")
    assert lacks(str(folder), shards(config), marked=True) == ["the end of data.pt"]
    (folder / "data.pt").unlink()
    assert lacks(str(folder), shards(config), marked=True) == []
    assert lacks(str(folder), shards(config), marked=False) == ["data.pt"]
    (folder / HISTORY_FILE).write_text('{"cliffs": {')
    assert lacks(str(folder), shards(config), marked=True) == [f"the end of {HISTORY_FILE}"]
    (folder / HISTORY_FILE).unlink()
    assert lacks(str(folder), shards(config), marked=True) == []


def test_where_verl_is_right_nothing_is_chosen(config: DictConfig) -> None:
    assert check_resume(config) is None
    write(config, 10)
    write(config, 20)
    assert check_resume(config) is None
    config.trainer.resume_mode = "disable"
    assert check_resume(config) is None


def test_the_mark_decides_also_where_a_later_one_is_whole(config: DictConfig) -> None:
    write(config, 10)
    write(config, 20, mark=False)
    assert check_resume(config) is None
    assert last_whole_line(config).startswith(f"The last whole checkpoint is {config.trainer.default_local_dir}/global")
    assert newest_whole(config.trainer.default_local_dir, shards(config))[0].endswith("global_step_10")


def test_a_run_goes_on_from_the_newest_whole_checkpoint_and_says_what_the_last_one_lacks(
    config: DictConfig, caplog: pytest.LogCaptureFixture
) -> None:
    older, last = write(config, 10), write(config, 20)
    cut(last / "actor/optim_world_size_2_rank_0.pt")
    assert check_resume(config) == str(older)
    [line] = [record.getMessage() for record in caplog.records if "goes on from" in record.getMessage()]
    assert f"{older}, the newest whole checkpoint" in line
    assert "global_step_20: it lacks the end of actor/optim_world_size_2_rank_0.pt" in line


@pytest.mark.parametrize("mark", ["", "30", None])
def test_a_mark_that_is_cut_short_or_absent_or_names_no_folder_does_not_begin_anew(
    config: DictConfig, mark: str | None
) -> None:
    folder = write(config, 10)
    path = Path(config.trainer.default_local_dir, "latest_checkpointed_iteration.txt")
    path.unlink() if mark is None else path.write_text(mark)
    assert check_resume(config) == str(folder)


def test_with_no_whole_checkpoint_the_error_names_what_each_lacks(config: DictConfig) -> None:
    """As left behind by ``max_actor_ckpt_to_keep=1`` when a run is stopped before the mark is written."""
    old, new = write(config, 10), write(config, 20, mark=False)
    for path in (old / "actor").iterdir():
        path.unlink()
    (new / "data.pt").unlink()
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole") as error:
        check_resume(config)
    assert "global_step_20: it lacks data.pt" in str(error.value)
    assert "global_step_10: it lacks actor/model_world_size_2_rank_0.pt" in str(error.value)
    assert "and 3 more files" in str(error.value) and "resume_mode=resume_path" in str(error.value)
    assert last_whole_line(config) == f"There is no whole checkpoint in {config.trainer.default_local_dir}"


def test_a_checkpoint_of_another_number_of_ranks_is_named_before_anything_starts(config: DictConfig) -> None:
    write(config, 10)
    config.trainer.n_gpus_per_node = 4
    with pytest.raises(ValueError, match=r"lacks actor/model_world_size_4_rank_0\.pt.*another number of ranks"):
        check_resume(config)


def test_a_named_checkpoint_that_is_not_whole_is_refused(config: DictConfig) -> None:
    folder = write(config, 10)
    config.trainer.resume_mode, config.trainer.resume_from_path = "resume_path", str(folder)
    assert check_resume(config) is None
    (folder / "actor/model_world_size_2_rank_1.pt").unlink()
    with pytest.raises(ValueError, match=r"resume_from_path=.*it lacks actor/model_world_size_2_rank_1\.pt"):
        check_resume(config)


def test_verl_is_shown_the_chosen_folder_only_while_it_loads(config: DictConfig) -> None:
    with checkpoints.resuming_from(config, "/somewhere/global_step_3"):
        assert config.trainer.resume_mode == "resume_path"
        assert config.trainer.resume_from_path == "/somewhere/global_step_3"
    assert (config.trainer.resume_mode, config.trainer.resume_from_path) == ("auto", None)
    with checkpoints.resuming_from(config, None):
        assert config.trainer.resume_mode == "auto"


def actors(config: DictConfig) -> list[str]:
    return sorted(path.parent.name for path in Path(config.trainer.default_local_dir).glob("*/actor"))


def test_what_was_resumed_from_is_deleted_once_enough_newer_ones_are_there(config: DictConfig) -> None:
    write(config, 10)
    write(config, 20)
    write(config, 30)
    delete_in_turn(config, resumed=20, saved=30)
    assert actors(config) == ["global_step_20", "global_step_30"]
    write(config, 40)
    delete_in_turn(config, resumed=20, saved=40)
    assert actors(config) == ["global_step_30", "global_step_40"]
    write(config, 50)
    delete_in_turn(config, resumed=20, saved=50)
    assert actors(config) == ["global_step_30", "global_step_40", "global_step_50"]  # the rest is verl's
    assert (Path(config.trainer.default_local_dir) / "global_step_10/data.pt").exists()  # as verl leaves it


def test_nothing_is_deleted_where_the_new_one_is_not_whole_or_nothing_was_resumed_or_all_are_kept(
    config: DictConfig,
) -> None:
    for step in (10, 20, 30):
        last = write(config, step)
    delete_in_turn(config, resumed=0, saved=30)
    config.trainer.max_actor_ckpt_to_keep = None
    delete_in_turn(config, resumed=20, saved=30)
    config.trainer.max_actor_ckpt_to_keep = 1
    cut(last / "actor/model_world_size_2_rank_0.pt")
    delete_in_turn(config, resumed=20, saved=30)
    assert actors(config) == ["global_step_10", "global_step_20", "global_step_30"]


def test_a_checkpoint_that_is_cut_short_does_not_count_as_one_that_is_kept(config: DictConfig) -> None:
    write(config, 10)
    cut(write(config, 20) / "actor/optim_world_size_2_rank_0.pt")
    write(config, 30)
    delete_in_turn(config, resumed=10, saved=30)
    assert actors(config) == ["global_step_10", "global_step_20", "global_step_30"]


def test_only_own_folders_up_to_the_step_that_was_saved_are_deleted(config: DictConfig, tmp_path: Path) -> None:
    config.trainer.max_actor_ckpt_to_keep = 1
    for step in (10, 20, 90):
        write(config, step)
    elsewhere = tmp_path.with_name(tmp_path.name + "_elsewhere") / "global_step_5"
    (elsewhere / "actor").mkdir(parents=True)
    os.symlink(elsewhere, tmp_path / "global_step_5")
    (tmp_path / "global_step_7" / "critic").mkdir(parents=True)
    (tmp_path / "best_global_step_1" / "actor").mkdir(parents=True)
    delete_in_turn(config, resumed=10, saved=20)
    assert actors(config) == ["best_global_step_1", "global_step_20", "global_step_5", "global_step_90"]
    assert (elsewhere / "actor").is_dir() and (tmp_path / "global_step_7" / "critic").is_dir()


def test_verls_old_name_of_keep_one_counts(config: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    write(config, 10)
    write(config, 20)
    OmegaConf.update(config, "trainer.remove_previous_ckpt_in_save", True, force_add=True)
    with caplog.at_level(logging.WARNING):
        delete_in_turn(config, resumed=10, saved=20)
    assert actors(config) == ["global_step_20"]
    assert "max_actor_ckpt_to_keep=1" in caplog.text
