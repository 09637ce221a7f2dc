"""Which folder is loaded for which kind of model path."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from examples.demo.sums_model import make_tokenizer
from recipe.hdpo.evaluation import checkpoint
from recipe.hdpo.evaluation.checkpoint import model_sha256, resolve_model, weights_dtype


def _hf(folder, value=0.0, dtype=np.float32):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    save_file({"w": np.full(4, value, dtype)}, folder / "model.safetensors")
    return folder


def _fsdp(step, world_size=2, shards=2):
    actor = step / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "huggingface" / "config.json").write_text("{}")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world_size}))
    for rank in range(shards):
        (actor / f"model_world_size_{world_size}_rank_{rank}.pt").write_bytes(b"shard")
    return actor


@pytest.fixture
def merger(monkeypatch):
    """Stands in for the merger's process; counts its runs."""
    calls = []

    def run(command, **_):
        calls.append(command)
        _hf(checkpoint.Path(command[command.index("--target_dir") + 1]), value=float(len(calls)))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(checkpoint.subprocess, "run", run)
    return calls


def test_a_hugging_face_folder_is_used_as_it_is(tmp_path):
    assert resolve_model(_hf(tmp_path / "m"), tmp_path) == tmp_path / "m"


@pytest.mark.parametrize("below", ["", "actor"])
def test_a_checkpoint_with_whole_weights_is_not_merged(tmp_path, merger, below):
    actor = _fsdp(tmp_path / "global_step_5")
    _hf(actor / "huggingface")
    assert resolve_model(tmp_path / "global_step_5" / below, tmp_path) == actor / "huggingface"
    assert merger == []


@pytest.mark.parametrize("below", ["", "actor"])
def test_shards_are_merged_once_next_to_the_checkpoint(tmp_path, merger, below):
    actor = _fsdp(tmp_path / "global_step_5")
    for _ in range(2):
        assert resolve_model(tmp_path / "global_step_5" / below, tmp_path / "out") == actor / "merged_hf"
    assert len(merger) == 1
    assert merger[0][1:6] == ["-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    assert merger[0][merger[0].index("--local_dir") + 1] == str(actor)
    assert not list(actor.glob(".merged_hf*"))


def test_a_merged_copy_of_other_shards_is_refused(tmp_path, merger):
    actor = _fsdp(tmp_path / "global_step_5")
    resolve_model(actor, tmp_path)
    (actor / "model_world_size_2_rank_1.pt").write_bytes(b"a newer shard")
    with pytest.raises(ValueError, match="was not merged from the shards that are in"):
        resolve_model(actor, tmp_path)


def test_a_read_only_checkpoint_is_merged_into_the_output_folder(tmp_path, merger, monkeypatch):
    actor = _fsdp(tmp_path / "global_step_5")
    monkeypatch.setattr(checkpoint.os, "access", lambda *_: False)
    assert resolve_model(actor, tmp_path / "out") == tmp_path / "out" / ".merged_hf"


def test_missing_shards_are_counted(tmp_path, merger):
    with pytest.raises(ValueError, match="3 of 4 model shards are missing"):
        resolve_model(_fsdp(tmp_path / "s", world_size=4, shards=1), tmp_path)
    assert merger == []


def test_a_failed_merge_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    actor = _fsdp(tmp_path / "s")
    failed = subprocess.CompletedProcess([], 1, "", "Traceback: no space left")
    monkeypatch.setattr(checkpoint.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match="no space left"):
        resolve_model(actor, tmp_path)
    assert not list(actor.glob("*merged_hf*"))


def test_neither_model_nor_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither a Hugging Face folder"):
        resolve_model(tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r"is not a folder.*hf download"):
        resolve_model(tmp_path / "Qwen2.5", tmp_path)


def test_the_digest_follows_weights_and_configuration_and_ignores_hidden_files(tmp_path):
    digest = model_sha256(_hf(tmp_path / "a"))
    assert model_sha256(_hf(tmp_path / "b")) == digest
    (tmp_path / "b" / ".merged_from").write_text("{}")
    assert model_sha256(tmp_path / "b") == digest
    assert model_sha256(_hf(tmp_path / "c", value=1.0)) != digest
    (tmp_path / "b" / "config.json").write_text('{"x": 1}')
    assert model_sha256(tmp_path / "b") != digest


def test_a_weights_file_that_was_cut_short_is_named(tmp_path):
    folder = _hf(tmp_path / "m")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:20])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read: .*cut short"):
        resolve_model(folder, tmp_path)


def test_the_types_of_the_weights_are_read_from_the_files(tmp_path):
    folder = _hf(tmp_path / "m")
    save_file({"v": np.zeros(2, np.float16)}, folder / "more.safetensors")
    assert weights_dtype(folder) == "F16,F32"


TINY = LlamaConfig(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    vocab_size=32,
    architectures=["LlamaForCausalLM"],
    tie_word_embeddings=False,
)
IDS = torch.arange(12)[None]


def _lora_checkpoint(folder, *, base=True):
    """A checkpoint of one rank as verl's manager writes it, with an adapter that changes the logits."""
    torch.manual_seed(0)
    model = get_peft_model(LlamaForCausalLM(TINY), LoraConfig(r=4, lora_alpha=32, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    actor = folder / "actor"
    (actor / "huggingface").mkdir(parents=True)
    TINY.save_pretrained(actor / "huggingface")
    make_tokenizer().save_pretrained(actor / "huggingface")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))
    (actor / "lora_train_meta.json").write_text(json.dumps({"r": 4, "lora_alpha": 32, "task_type": "CAUSAL_LM"}))
    weights = {name: w for name, w in model.state_dict().items() if base or "lora_" in name}
    torch.save(weights, actor / "model_world_size_1_rank_0.pt")
    return actor, model


def test_a_lora_adapter_is_merged_into_its_base_model(tmp_path):
    actor, model = _lora_checkpoint(tmp_path)
    # What verl writes with hf_model has PEFT's names, and is passed over.
    weights = {name: w.detach().numpy() for name, w in model.state_dict().items()}
    save_file(weights, actor / "huggingface" / "model.safetensors")
    with pytest.raises(ValueError, match="pass verl's global_step_N"):
        resolve_model(actor / "huggingface", tmp_path / "out")
    folder = resolve_model(tmp_path, tmp_path / "out")
    assert folder == actor / "merged_hf" and not (folder / "lora_adapter").exists()
    assert weights_dtype(folder) == "BF16"
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        ours, theirs = merged(IDS).logits, model(IDS).logits
        with model.disable_adapter():
            without = model(IDS).logits
    off = (ours - theirs).abs().max()
    assert off < 0.02 < 0.2 < (ours - without).abs().max()


def test_an_adapter_without_its_base_model_is_refused(tmp_path):
    actor, _ = _lora_checkpoint(tmp_path, base=False)
    with pytest.raises(ValueError, match="without its base model"):
        resolve_model(actor, tmp_path)
    assert not list(actor.glob("*merged_hf*"))


def test_an_adapter_without_its_scale_is_refused(tmp_path, monkeypatch):
    """Without lora_train_meta.json verl's merger writes an alpha of 0, with which the adapter changes nothing."""
    actor = _fsdp(tmp_path)

    def run(command, **_):
        folder = _hf(checkpoint.Path(command[command.index("--target_dir") + 1]))
        (folder / "lora_adapter").mkdir()
        (folder / "lora_adapter" / "adapter_config.json").write_text('{"lora_alpha": 0}')
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(checkpoint.subprocess, "run", run)
    with pytest.raises(ValueError, match="without its scale"):
        resolve_model(actor, tmp_path)
    assert not list(actor.glob("*merged_hf*"))
