"""The rows of verl's data set before its filter of long prompts, which leaves out rows that it fails to read, too."""

from __future__ import annotations

import copy
from typing import Any

from omegaconf import DictConfig, open_dict
from verl.utils.dataset.rl_dataset import RLHFDataset, get_dataset_class


def whole_dataset(config: DictConfig, split: str, tokenizer: Any, processor: Any) -> RLHFDataset | None:
    """verl's data set of a split without its filter; None for a data set class of the user's own.

    Where verl draws ``data.train_max_samples`` rows at random without a seed, all rows are read: any may be drawn.

    Args:
        split: "train" or "val".

    Raises:
        ValueError: verl cannot read the files.
    """
    if get_dataset_class(config.data) is not RLHFDataset:
        return None
    data = copy.deepcopy(config.data)
    with open_dict(data):
        data.filter_overlong_prompts = False
    is_random = data.get("shuffle") and data.get("seed") is None
    most = -1 if is_random else data.get(f"{split}_max_samples", -1)
    files = data.get(f"{split}_files")
    try:
        return RLHFDataset(files, tokenizer=tokenizer, processor=processor, config=data, max_samples=most)
    except Exception as error:
        raise ValueError(
            f"data.{split}_files={files}: verl cannot read this ({type(error).__name__}: {error}). It takes .parquet, "
            ".json and .jsonl files, all with the same columns of the same types"
        ) from error


def refuse_too_few(config: DictConfig, split: str, dataset: Any) -> None:
    """Refuse a data set of which verl's filter left no row, or of which no step of training can be made.

    verl itself ends in an error of the data loader, or divides by zero once all engines are up.

    Raises:
        ValueError: there is no row, or there are fewer training rows than ``data.train_batch_size``.
    """
    if dataset is None:
        return
    files = f"data.{split}_files={config.data.get(f'{split}_files')}"
    if len(dataset) == 0:
        raise ValueError(
            f"no row of {files} is left after verl's filter of prompts with more than data.max_prompt_length="
            f"{config.data.max_prompt_length} tokens: raise that limit"
        )
    if split == "train" and len(dataset) < config.data.train_batch_size:
        raise ValueError(
            f"{files} gives {len(dataset)} rows, fewer than data.train_batch_size={config.data.train_batch_size}, so "
            "an epoch has no step: lower data.train_batch_size, or add rows (prompts with more than "
            f"data.max_prompt_length={config.data.max_prompt_length} tokens may have been left out)"
        )
