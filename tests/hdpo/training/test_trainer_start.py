"""The trainer's start up to the first worker, with verl's own tokenizer, data set and data loader."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.demo.sums_model import CHATML
from recipe.hdpo.config.checks import check_config
from recipe.hdpo.training.trainer_sync import HDPOTrainerSync
from tests.hdpo.composed_config import composed_from

ROW = {
    "data_source": "d",
    "prompt": [{"role": "user", "content": "2+3=?"}],
    "extra_info": {"solution": "It is 5.", "index": 0},
    "reward_model": {"ground_truth": "5"},
}


def start(model: Path, folder: Path, template: str | None, *overrides: str) -> None:
    """The first two stages of ``PPOTrainer._setup``."""
    pq.write_table(pa.Table.from_pylist([ROW, ROW]), folder / "rows.parquet")
    files = [f"data.{split}_files={folder / 'rows.parquet'}" for split in ("train", "val")]
    lengths = [
        "data.max_prompt_length=64",
        "data.max_response_length=32",
        "actor_rollout_ref.rollout.max_model_len=512",
    ]
    config = composed_from(f"actor_rollout_ref.model.path={model}", *files, *lengths, "hdpo.topk=8", *overrides)
    config.actor_rollout_ref.model.custom_chat_template = template
    config.data.train_batch_size, config.data.filter_overlong_prompts_workers = 2, None
    trainer = HDPOTrainerSync.__new__(HDPOTrainerSync)
    trainer.config, trainer.hdpo = config, check_config(config)
    trainer.trainer_mode, trainer.parameter_sync_step = "sync", 1
    trainer._init_tokenizer()
    trainer._init_dataloader()
    assert len(trainer.train_dataset) == 2


def test_a_privileged_prompt_is_printed_before_any_worker_starts(
    chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(chat_model, tmp_path, None, "hdpo.privileged.template='{{ problem }} Hint: {{ solution }}'")
    assert "<|im_start|>user\n2+3=? Hint: It is 5.<|im_end|>\n<|im_start|>assistant\n" in capsys.readouterr().out


def test_a_chat_template_that_drops_the_solution_ends_the_start(chat_model: Path, tmp_path: Path) -> None:
    drops = CHATML.replace("in messages", "in messages if message.role != 'system'")
    start(chat_model, tmp_path, drops)
    with pytest.raises(ValueError, match=r"drops the system turn; teacher = student.*placement=user"):
        start(chat_model, tmp_path, drops, "hdpo.privileged.placement=system")


def test_a_tokenizer_without_a_chat_template_ends_the_start_before_the_data_is_read(
    chat_model: Path, tmp_path: Path
) -> None:
    """verl's filter of long prompts would print an error for each row, and leave none."""
    model = tmp_path / "model"
    shutil.copytree(chat_model, model)
    (model / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=f"{model} has no chat template.*custom_chat_template"):
        start(model, tmp_path, None, "data.train_files=/nowhere.parquet", "+control=grpo")


def test_rows_that_the_chat_template_refuses_are_named_before_verls_filter_leaves_them_out(
    chat_model: Path, tmp_path: Path
) -> None:
    refuses = "{% if '2+3' in messages[0].content %}{{ raise_exception('no sums') }}{% endif %}" + CHATML
    with pytest.raises(ValueError, match=r"training row 0 \(index 0\) cannot be made.*TemplateError: no sums"):
        start(chat_model, tmp_path, refuses)
