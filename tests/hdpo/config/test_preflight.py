"""What is not there when a training is launched is named with its key before Ray starts."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.config.preflight import not_ready
from tests.hdpo.composed_config import composed

MODEL = "actor_rollout_ref.model.path"
REWARD = "reward.custom_reward_function"


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    """A config for which everything is there, on the CPU stack."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("ready")
    pq.write_table(pa.table({"prompt": [[{"role": "user", "content": "2+3=?"}]]}), folder / "rows.parquet")
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": []}) + "\n")
    (folder / "reward.py").write_text("def score(**_):\n    return 1.0\n")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "<e>": 1}, unk_token="a")), eos_token="<e>"
    )
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": 100}))
    return composed(
        "+device=cpu",
        f"data.train_files=[{folder}/rows.parquet]",
        f"data.val_files={folder}/rows.jsonl",
        f"{MODEL}={folder}",
        f"{REWARD}.path={folder}/reward.py",
        f"{REWARD}.name=score",
    )


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster of another program on this machine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.utils.read_ray_address", lambda: None)


def said(ready: DictConfig, **changes: object) -> list[str]:
    config = ready.copy()
    for key, value in changes.items():
        OmegaConf.update(config, key, value, force_add=True)
    return list(not_ready(config))


def test_nothing_is_said_where_everything_is_there(ready: DictConfig) -> None:
    assert said(ready) == []


def test_data_that_cannot_be_read_is_named(ready: DictConfig, tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_text("no parquet")
    pq.write_table(pa.table({"question": ["2+3=?"]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "images": ["b"]}), tmp_path / "images.parquet")
    (tmp_path / "empty.jsonl").touch()
    for name, reason in (
        ("missing.parquet", "does not exist"),
        ("broken.parquet", "cannot be read: ArrowInvalid"),
        ("other.parquet", "has no column 'prompt', but ['question']"),
        ("images.parquet", "has a column 'images' (data.image_key)"),
        ("empty.jsonl", "the file is empty"),
        ("rows.csv", "name a .parquet, .json or .jsonl file"),
    ):
        [message] = said(ready, **{"data.train_files": [str(tmp_path / name)]})
        assert message.startswith(f"data.train_files={tmp_path / name} ") and reason in message
    # verl fetches remote files itself, and a dataset of the user's own reads what it likes
    assert said(ready, **{"data.train_files": "hdfs://far/train.parquet"}) == []
    assert said(ready, **{"data.train_files": "/no.csv", "data.custom_cls.path": "mine.py"}) == []
    assert said(ready, **{"data.val_files": f"{tmp_path}/im*.parquet"}) == []


def test_models_and_tokenizers_that_cannot_be_loaded_are_named(ready: DictConfig, tmp_path: Path) -> None:
    assert "does not exist (seen from" in said(ready, **{MODEL: "/nowhere"})[0]
    assert "without config.json" in said(ready, **{MODEL: str(tmp_path)})[0]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no such architecture"}))
    assert "its tokenizer cannot be loaded" in said(ready, **{MODEL: str(tmp_path)})[0]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    for file in Path(ready.actor_rollout_ref.model.path).glob("token*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    [message] = said(ready, **{MODEL: str(tmp_path)})
    assert "has no chat template" in message and "custom_chat_template" in message
    assert said(ready, **{MODEL: str(tmp_path), "actor_rollout_ref.model.custom_chat_template": "{{ messages }}"}) == []


def test_reward_functions_that_cannot_be_imported_are_named(ready: DictConfig, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module")
    assert "No module named 'no_such_module'" in said(ready, **{f"{REWARD}.path": str(tmp_path / "broken.py")})[0]
    assert "file not found" in said(ready, **{f"{REWARD}.path": "/no.py"})[0]
    assert "object_name='other'" in said(ready, **{f"{REWARD}.name": "other"})[0]
    assert said(ready, **{f"{REWARD}.path": "pkg://recipe.hdpo.reward", f"{REWARD}.name": "compute_score"}) == []


def test_accelerators_and_nodes_that_are_not_there_are_counted(
    ready: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = {"trainer.device": "cuda", "trainer.n_gpus_per_node": 2, "ray_kwargs.ray_init.num_gpus": None}
    assert "trainer.n_gpus_per_node=2, and this machine has 0 accelerators" in said(ready, **card)[0]
    assert said(ready, **card | {"ray_kwargs.ray_init.num_gpus": 2}) == []
    assert "no Ray cluster runs" in said(ready, **{"trainer.nnodes": 2})[0]
    # In a cluster that runs already the training may be elsewhere.
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert said(ready, **card, **{"trainer.nnodes": 2, MODEL: "/nowhere"}) == []
