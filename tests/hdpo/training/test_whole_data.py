"""verl's own data set class reads the rows, and all are checked before verl's filter drops what it cannot read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from examples.demo.make_sums_model import make_tokenizer
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.startup import check_data
from recipe.hdpo.rollout.chat_template import make_token_builder
from recipe.hdpo.training.trainer_sync import HDPOTrainerSync
from recipe.hdpo.training.whole_data import refuse_too_few, whole_dataset
from tests.hdpo.composed_config import composed

DEFAULTS = Path(__file__).parents[3] / "recipe/hdpo/config/hdpo/default.yaml"
KNOBS = HDPOConfig.from_mapping(OmegaConf.to_container(OmegaConf.load(DEFAULTS)))
ROW = {
    "data_source": "x",
    "prompt": [{"role": "user", "content": "1+1?"}],
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "extra_info": {"index": 5, "solution": "1+1=2"},
}


def config_of(folder: Path, rows: list[Any], **data: Any) -> Any:
    file = folder / "rows.jsonl"
    file.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    files = {"train_files": str(file), "val_files": str(file), "cache_dir": str(folder)}
    return OmegaConf.create({"data": {**files, "max_prompt_length": 8, "filter_overlong_prompts": True, **data}})


def test_rows_that_verls_filter_would_drop_are_refused_as_verl_reads_them(tmp_path: Path) -> None:
    config = config_of(tmp_path, [ROW, ROW | {"prompt": None}, ROW | {"prompt": "1+1?"}])
    data = whole_dataset(config, "train", None, None)
    assert data is not None and len(data) == 3
    with pytest.raises(ValueError, match=r"2 of 3 rows of .* nothing \(None\) in 1 \(row 1 .*; a text in 1 \(row 2"):
        check_data(config, KNOBS, data)


def test_a_missing_column_is_named_beside_those_that_there_are(tmp_path: Path) -> None:
    config = config_of(tmp_path, [{"question": "1+1?", "prompt": ROW["prompt"]}])
    with pytest.raises(
        ValueError, match="no column data_source, reward_model, which verl reads; there are question, prompt"
    ):
        check_data(config, KNOBS, whole_dataset(config, "train", None, None))


def test_the_first_rows_or_all_that_may_be_drawn_are_read(tmp_path: Path) -> None:
    for settings, size in (({"shuffle": False}, 2), ({"shuffle": True, "seed": 1}, 2), ({"shuffle": True}, 3)):
        config = config_of(tmp_path, [ROW] * 3, train_max_samples=2, **settings)
        data = whole_dataset(config, "train", None, None)
        assert data is not None and len(data) == size, settings


@pytest.mark.parametrize("rows", [['{"prompt": '], None], ids=["broken", "absent"])
def test_files_that_verl_cannot_read_are_one_error_with_their_name(tmp_path: Path, rows: list[Any] | None) -> None:
    config = config_of(tmp_path, rows or [])
    if rows is None:
        (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(ValueError, match=r"data\.val_files=.*rows\.jsonl: verl cannot read this"):
        whole_dataset(config, "val", None, None)


def test_a_data_set_that_the_filter_emptied_is_refused_with_the_limit(tmp_path: Path) -> None:
    config = config_of(tmp_path, [ROW], train_batch_size=1)
    refuse_too_few(config, "train", [ROW])
    refuse_too_few(config, "train", None)
    with pytest.raises(ValueError, match=r"no row of .* more than data\.max_prompt_length=8 tokens: raise that limit"):
        refuse_too_few(config, "train", [])


def test_training_rows_of_which_no_step_can_be_made_are_refused_and_few_of_validation_are_not(tmp_path: Path) -> None:
    config = config_of(tmp_path, [ROW], train_batch_size=2)
    refuse_too_few(config, "train", [ROW] * 2)
    refuse_too_few(config, "val", [ROW])
    with pytest.raises(ValueError, match=r"rows\.jsonl gives 1 rows, fewer than data\.train_batch_size=2.*: lower"):
        refuse_too_few(config, "train", [ROW])


def test_a_class_of_the_users_own_is_not_read_twice(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from torch.utils.data import Dataset\nclass Own(Dataset): pass\n")
    config = config_of(tmp_path, [ROW], custom_cls={"path": str(tmp_path / "own.py"), "name": "Own"})
    assert whole_dataset(config, "train", None, None) is None


@pytest.fixture(scope="module")
def plain() -> Any:
    return composed("data.train_batch_size=1", "data.dataloader_num_workers=0", "data.max_prompt_length=256")


def trainer_with(plain: Any, folder: Path, train: list[Any], val: list[Any]) -> HDPOTrainerSync:
    """The trainer as it is when it makes its data loaders, with the demo's tokenizer and chat template."""
    config = copy.deepcopy(plain)
    for split, rows in (("train", train), ("val", val)):
        file = folder / f"{split}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config.data[f"{split}_files"] = str(file)
    config.data.filter_overlong_prompts_workers = None
    trainer = object.__new__(HDPOTrainerSync)
    trainer.config, trainer.hdpo, trainer.tokenizer, trainer.processor = config, KNOBS, make_tokenizer(), None
    trainer.token_builder = make_token_builder(config, trainer.tokenizer, None, None)
    trainer.privileged_builder = None
    trainer.trainer_mode, trainer.parameter_sync_step = "sync", 1
    return trainer


def test_the_trainer_makes_its_data_loaders_of_rows_that_are_in_order(plain: Any, tmp_path: Path) -> None:
    trainer = trainer_with(plain, tmp_path, [ROW] * 3, [ROW])
    trainer._init_dataloader()
    assert len(trainer.train_dataset) == 3 and len(trainer.val_dataset) == 1 and trainer.total_training_steps == 3 * 30


LONG = ROW | {"prompt": [{"role": "user", "content": "1" * 400}]}


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ([ROW, ROW | {"prompt": "text"}], [ROW], r"1 of 2 rows of data\.train_files=.* stands a text in 1 \(row 1"),
        (
            [ROW],
            [ROW | {"extra_info": "{}"}],
            r"1 of 1 rows of data\.val_files=.* column 'extra_info' stands JSON text",
        ),
        ([LONG], [ROW], r"no row of data\.train_files=.* more than data\.max_prompt_length=256 tokens"),
        ([ROW], [LONG], r"no row of data\.val_files=.* more than data\.max_prompt_length=256 tokens"),
        ([ROW, LONG], [ROW], r"data\.train_files=.* gives 1 rows, fewer than data\.train_batch_size=2"),
    ],
    ids=["text", "JSON text in validation", "long", "long in validation", "few"],
)
def test_the_trainer_refuses_rows_with_one_error_of_its_own(
    plain: Any, tmp_path: Path, train: list[Any], val: list[Any], said: str
) -> None:
    trainer = trainer_with(plain, tmp_path, train, val)
    trainer.config.data.train_batch_size = len(train)
    with pytest.raises(ValueError, match=said):
        trainer._init_dataloader()
