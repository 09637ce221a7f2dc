"""What has to be there before Ray starts: data, model, tokenizer, reward function, accelerators.

Without one of them verl's processes fail or wait for minutes. Where a Ray cluster runs already the training may be on
other machines, and nothing is looked at here.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from recipe.hdpo.config.keys import MODEL, select


def not_ready(config: DictConfig) -> Iterator[str]:
    """Everything that is missing on this machine, each with its key and the way out."""
    cluster = running_cluster(config)
    if cluster:
        print(f"HDPO: Ray runs at {cluster}: data, model and accelerators of its nodes are not looked at", flush=True)
        return
    yield from _data(config)
    yield from _model(config)
    yield from _reward(config)
    yield from _accelerators(config)


def running_cluster(config: DictConfig) -> str | None:
    """Address of the cluster that ``ray.init`` would join; None where it starts one of its own."""
    from ray._private.utils import read_ray_address

    named = os.environ.get("RAY_ADDRESS") or select(config, "ray_kwargs.ray_init.address")
    return None if named == "local" else named or read_ray_address()


def _data(config: DictConfig) -> Iterator[str]:
    if select(config, "data.custom_cls.path"):
        return  # a dataset of the user's own reads what it likes
    for key in ("data.train_files", "data.val_files"):
        files = select(config, key)
        for file in [files] if files is None or isinstance(files, str) else files:
            problem = _data_file(config, str(file), training=key == "data.train_files")
            if problem:
                yield f"{key}={file} {problem}"


def _data_file(config: DictConfig, name: str, *, training: bool) -> str | None:
    if "://" in name:
        return None  # remote: verl fetches it
    if not name.endswith((".parquet", ".json", ".jsonl")):
        return "is no data file that verl reads: name a .parquet, .json or .jsonl file"
    path = os.path.expanduser(name)
    found = [path] if os.path.exists(path) else sorted(glob.glob(path))
    if not found:
        return f"does not exist (seen from {os.getcwd()}): name the file that your data preparation wrote"
    try:
        columns = _columns(found[0])
    except Exception as error:
        return f"cannot be read: {type(error).__name__}: {error}: write it anew"
    prompt = select(config, "data.prompt_key", "prompt")
    if columns is not None and prompt not in columns:
        return f"has no column '{prompt}', but {sorted(columns)}: set data.prompt_key to the prompts' column"
    for key in ("image_key", "video_key", "audio_key"):
        column = select(config, f"data.{key}")
        if training and columns is not None and column in columns:
            return (
                f"has a column '{column}' (data.{key}), so it is multi-modal, and HDPO's privileged prompts are text: "
                f"remove the column, or set data.{key} to another name"
            )
    return None


def _columns(path: str) -> set[str] | None:
    """Columns of a Parquet file or of a JSONL file's first line; None for JSON, which would have to be read whole."""
    if path.endswith(".parquet"):
        import pyarrow.parquet

        return set(pyarrow.parquet.read_schema(path).names)
    with open(path, encoding="utf-8") as lines:
        first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise ValueError("the file is empty")
    return set(json.loads(first)) if path.endswith(".jsonl") else None


def _model(config: DictConfig) -> Iterator[str]:
    key = f"{MODEL}.tokenizer_path" if select(config, f"{MODEL}.tokenizer_path") else f"{MODEL}.path"
    for name in dict.fromkeys((f"{MODEL}.path", key)):
        path = select(config, name)
        missing = _no_folder(None if path is None else str(path))
        if missing:
            yield f"{name}={path} {missing}"
            return
    tokenizer_path = str(select(config, key))
    if "://" in tokenizer_path:
        return
    try:
        tokenizer = _tokenizer(tokenizer_path, bool(select(config, f"{MODEL}.trust_remote_code", False)))
    except Exception as error:
        said = str(error).strip().splitlines() or [""]
        yield (
            f"{key}={tokenizer_path}: its tokenizer cannot be loaded: {type(error).__name__}: {said[0]}: name a folder "
            "with the tokenizer's files, or a hub model that can be reached or is in the hub's cache here"
        )
        return
    if tokenizer.chat_template is None and not select(config, f"{MODEL}.custom_chat_template"):
        yield (
            f"{key}={tokenizer_path}: its tokenizer has no chat template, and verl renders prompts by one: set "
            f"{MODEL}.custom_chat_template, or use a model that has one"
        )


def _no_folder(path: str | None) -> str | None:
    if path is None:
        return "is not set: name a folder or a hub model"
    folder = Path(path).expanduser()
    if "://" in path or (folder.is_dir() and (folder / "config.json").is_file()):
        return None
    if folder.is_dir():
        return "is a folder without config.json: name the model's folder"
    if path.startswith(("/", ".", "~")) or path.count("/") > 1:
        return f"does not exist (seen from {os.getcwd()}): name the model's folder, or a hub model as OWNER/NAME"
    return None


def _tokenizer(path: str, trust_remote_code: bool) -> Any:
    from verl.utils import hf_tokenizer

    return hf_tokenizer(os.path.expanduser(path), trust_remote_code=trust_remote_code)


def _reward(config: DictConfig) -> Iterator[str]:
    key = "reward.custom_reward_function"
    path, name = select(config, f"{key}.path"), select(config, f"{key}.name")
    if not path or "://" in path.removeprefix("pkg://").removeprefix("file://"):
        return
    from verl.utils.import_utils import load_extern_object

    try:
        load_extern_object(module_path=path, object_name=str(name))
    except Exception as error:
        cause = error.__cause__ or error
        yield (
            f"{key}.path={path} with {key}.name={name} cannot be imported: {type(cause).__name__}: {cause}: name a "
            "file that imports here, and a function in it"
        )


def _accelerators(config: DictConfig) -> Iterator[str]:
    nodes, wanted = select(config, "trainer.nnodes", 1), select(config, "trainer.n_gpus_per_node", 1)
    if nodes > 1:
        yield (
            f"trainer.nnodes={nodes}, and no Ray cluster runs that this command could join: start one (ray start "
            "--head here, ray start --address=... on the others), or set RAY_ADDRESS"
        )
        return
    if select(config, "trainer.device") == "cpu":
        return
    from verl.utils.device import get_device_name, get_torch_device

    declared = select(config, "ray_kwargs.ray_init.num_gpus")
    name = get_device_name()
    found = declared if declared is not None else 0 if name == "cpu" else get_torch_device().device_count()
    if found < wanted:
        yield (
            f"trainer.n_gpus_per_node={wanted}, and this machine has {found} accelerators that verl can use: lower it, "
            "or look at the driver and CUDA_VISIBLE_DEVICES; without any, add +device=cpu and set VERL_PLATFORM=cpu"
        )
