"""From what training leaves behind to a folder that vLLM can load.

    Hugging Face folder (config.json and *.safetensors)    -> itself
    verl checkpoint global_step_N, or its actor/           -> its huggingface/ folder, if it has the weights
                                                           -> else merged once by verl.model_merger,
                                                              and a LoRA adapter into its base model by PEFT

verl.model_merger rounds the weights to bfloat16. To evaluate float32 weights, train with ``hf_model`` in
``actor_rollout_ref.actor.checkpoint.save_contents``. It unpickles the shards: merge only checkpoints you
trust.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from recipe.hdpo.evaluation.problems import file_sha256

_DIGESTED = {".safetensors", ".json", ".jinja", ".txt", ".model"}
_MARK = ".merged_from"


def resolve_model(path: Path, out: Path) -> Path:
    """The Hugging Face folder of ``path``, merging FSDP shards if need be.

    Args:
        path: Hugging Face folder, or verl checkpoint.
        out: the evaluation's output folder: takes the merged model (``.merged_hf``) if the checkpoint is
            read-only.

    Raises:
        ValueError: neither of the two, an unsupported kind of checkpoint, or a merge that failed.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(
            f"--model {path} is not a folder. Pass a Hugging Face model folder (`hf download NAME "
            "--local-dir DIR` "
            "fetches one) or a verl checkpoint (.../global_step_N)."
        )
    if _has_weights(path):
        if _has_adapter(path):
            raise ValueError(
                f"--model {path} holds a LoRA adapter and its base model: pass verl's global_step_N above it"
            )
        return path
    actor = path / "actor" if (path / "actor").is_dir() else path
    if not (actor / "fsdp_config.json").is_file():
        raise ValueError(
            f"--model {path}: neither a Hugging Face folder (config.json and *.safetensors) nor a verl FSDP "
            "checkpoint "
            "(fsdp_config.json in it or in actor/). Merge other kinds with `python -m verl.model_merger "
            "merge`."
        )
    if _has_weights(actor / "huggingface") and not _has_adapter(actor / "huggingface"):
        return actor / "huggingface"
    cache = actor / "merged_hf"
    if not cache.exists() and not os.access(actor, os.W_OK):
        cache = Path(out) / ".merged_hf"
    return _merge(actor, cache)


def model_sha256(folder: Path) -> str:
    """SHA-256 over the names and bytes of a model folder's weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in _DIGESTED:
            digest.update(f"{file.name}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def weights_dtype(folder: Path) -> str:
    """The types of the stored weights, for example ``F32`` or ``BF16,F32`` (from the safetensors headers)."""
    return ",".join(sorted(set(_stored(folder).values())))


def _stored(folder: Path) -> dict[str, str]:
    """The type of every stored tensor by its name, from the headers of the weights.

    Raises:
        ValueError: a file that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as tensors:
                names = tensors.keys()
                found |= {name: tensors.get_slice(name).get_dtype() for name in names}
        except SafetensorError as error:
            raise ValueError(
                f"{file} cannot be read: {error}. Was it cut short? Copy or save the model again"
            ) from None
    return found


def _has_weights(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _has_adapter(folder: Path) -> bool:
    """Whether the weights are a LoRA adapter's and its base model's, by PEFT's names: with ``hf_model`` verl stores
    them so, and no engine reads that."""
    return any(".lora_A." in name for name in _stored(folder))


def _shards(actor: Path) -> dict[str, list[int]]:
    """Size and time stamp of every shard: they tell whether a merged copy is still theirs."""
    files = sorted(actor.glob("model_world_size_*_rank_*.pt"))
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _merge(actor: Path, cache: Path) -> Path:
    shards = _shards(actor)
    world_size = json.loads((actor / "fsdp_config.json").read_text()).get("world_size")
    wanted = [f"model_world_size_{world_size}_rank_{rank}.pt" for rank in range(world_size or 0)]
    if not wanted or not set(wanted) <= set(shards):
        raise ValueError(
            f"{actor}: {len(set(wanted) - set(shards))} of {len(wanted)} model shards are missing "
            f"(model_world_size_{world_size}_rank_*.pt). Was the checkpoint saved completely?"
        )
    if cache.exists():
        mark = cache / _MARK
        if not mark.is_file() or json.loads(mark.read_text()) != shards:
            raise ValueError(
                f"{cache} was not merged from the shards that are in {actor} now. Remove it and run again."
            )
        return cache
    part = cache.with_name(f".{cache.name}.{os.getpid()}")
    part.mkdir(parents=True)
    print(f"Merging {len(wanted)} FSDP shard(s) of {actor} into {cache} (weights become bfloat16)", flush=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    done = subprocess.run(
        [*command, "--local_dir", str(actor), "--target_dir", str(part)], capture_output=True, text=True
    )
    try:
        if done.returncode != 0 or not _has_weights(part):
            alone = "an adapter without its base model (checkpoint.save_lora_only): merge it into that model with PEFT"
            reason = alone if (part / "lora_adapter").exists() else done.stderr[-1500:]
            raise ValueError(f"verl.model_merger could not make a model of {actor}: {reason}")
        if (part / "lora_adapter").exists():
            _merge_adapter(part)
    except BaseException:  # a full disk or an interrupt too: no half of a model stays
        shutil.rmtree(part)
        raise
    (part / _MARK).write_text(json.dumps(shards))
    part.rename(cache)
    return cache


def _merge_adapter(folder: Path) -> None:
    """Merge the LoRA adapter that verl.model_merger leaves in ``folder/lora_adapter`` into the base model beside it:
    computed in single precision, stored in bfloat16 as the rest."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = folder / "lora_adapter"
    if not json.loads((adapter / "adapter_config.json").read_text())["lora_alpha"]:
        raise ValueError(
            f"{folder.parent} has a LoRA adapter without its scale: lora_train_meta.json, which verl writes beside the "
            "shards, has lora_alpha"
        )
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    shutil.rmtree(adapter)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    merged.to(torch.bfloat16).save_pretrained(folder)
