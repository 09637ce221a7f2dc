"""What a study is about: how its problems are made, how its base model, and how long a response may be."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_preprocess.word_problems import HELDOUT, NOT_TRAINED_ON
from data_preprocess.words import WEIGHTS as WORD_WEIGHTS
from examples.demo.model_folder import RECORD
from examples.language import MAX_RESPONSE
from examples.training import MAX_TOKENS, copy_whole, python
from recipe.hdpo.evaluation.problems import file_sha256

# Sums: rows by number of terms, 2 to 6, of the training data; the problems to evaluate on have as many of each.
WEIGHTS = (1, 2, 4, 3, 2)
TRAIN_PROBLEMS = 640
# In the place of the weights, where these are too large to keep.
DIGEST = "model.sha256"


@dataclass(frozen=True)
class Sizes:
    """How many problems rates are chosen by, and how many are reported; of these last the ones of a family that
    nothing is trained on come on top."""

    tune: int
    test: int
    untrained: int = 0


@dataclass(frozen=True)
class Task:
    """A kind of problems and the model that is to solve them.

    Attributes:
        model: makes the base model in a folder, from the one that is kept beside the results if there is one, with
            the plan's arguments. It stays if it is there already, and the program is left where it is another one.
        keep: copies what the base model can be made from again beside the results.
        write: writes train.parquet, tune.parquet and test.parquet of these sizes into an empty folder. No two share a
            problem.
        about: what decides the training problems, JSON-able.
        max_tokens: the longest response, as in training.
        untrained: families among the test problems that no other part holds.
        threads: of each process; None leaves it to the programs, which give a model of 1 M weights one in training.
    """

    model: Callable[[Path, Path, Sequence[str]], None]
    keep: Callable[[Path, Path], None]
    write: Callable[[Sizes, Path], None]
    about: dict[str, Any]
    max_tokens: int
    untrained: tuple[str, ...] = ()
    threads: int | None = None


def make_sums_model(out: Path, kept: Path, arguments: Sequence[str]) -> None:
    """A model of 1 M weights, kept whole: its command gives other weights on another kind of processor."""
    if kept.exists() and not out.exists():
        copy_whole(kept, out)
    python("-m", "examples.demo.make_sums_model", "--out", out, *arguments)


def make_words_model(out: Path, kept: Path, arguments: Sequence[str]) -> None:
    """SmolLM2, or some of its layers, with an adapter, of which only the adapter is kept."""
    smollm2 = out.with_name("smollm2")
    python("-m", "examples.demo.make_smollm2", "--out", smollm2)
    kept_one = ["--kept", kept] if kept.exists() else []
    python("-m", "examples.language.make_words_model", "--base", smollm2, "--out", out, *kept_one, *arguments)


def keep_adapter(model: Path, kept: Path) -> None:
    """The adapter, how it was made, and the digest of the merged weights."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
        folder = Path(temporary, "kept")
        shutil.copytree(model / "adapter", folder / "adapter")
        shutil.copy(model / RECORD, folder)
        (folder / DIGEST).write_text(weights_sha256(model) + "\n")
        folder.rename(kept)


def weights_sha256(model: Path) -> str:
    """Digest of a model's weights; of a folder that keeps the digest in their place, that."""
    digest = model / DIGEST
    return digest.read_text().strip() if digest.exists() else file_sha256(model / "model.safetensors")


def write_sums(sizes: Sizes, folder: Path) -> None:
    """Sums of 2 to 6 numbers; the problems to evaluate on have the same share of every difficulty."""
    held_out = sizes.tune + sizes.test
    arguments = ["--train-size", TRAIN_PROBLEMS, "--test-size", held_out, "--weights", *WEIGHTS]
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        python("-m", "data_preprocess.sums", "--out", made, *arguments)
        rows = pq.read_table(Path(made, "test.parquet"))
        difficulty = pd.Series([info["difficulty"] for info in rows["extra_info"].to_pylist()])
        rank = difficulty.groupby(difficulty).cumcount() / difficulty.map(difficulty.value_counts())
        tuning = (rank < sizes.tune / held_out).to_numpy()
        shutil.copy(Path(made, "train.parquet"), folder)
        pq.write_table(rows.filter(~tuning), folder / "test.parquet")
        pq.write_table(rows.filter(tuning), folder / "tune.parquet")


def write_words(sizes: Sizes, folder: Path) -> None:
    """Problems in words; the test problems hold a family that is in no other part. Some of the others are val.parquet
    as well, for a plan that validates while it trains: on what it reports, as the paper does."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        arguments = ["--train-size", TRAIN_PROBLEMS, "--tune-size", sizes.tune, "--test-size", sizes.test]
        python("-m", "data_preprocess.words", "--out", made, *arguments, "--heldout-size", sizes.untrained)
        for name in ("train", "tune"):
            shutil.copy(Path(made, f"{name}.parquet"), folder)
        parts = [pq.read_table(Path(made, f"{name}.parquet")) for name in ("test", HELDOUT)]
        pq.write_table(pa.concat_tables(parts), folder / "test.parquet")
        pq.write_table(parts[0].slice(0, sizes.test // 2), folder / "val.parquet")


TASKS = {
    "sums": Task(
        make_sums_model, copy_whole, write_sums, {"train": TRAIN_PROBLEMS, "weights": list(WEIGHTS)}, MAX_TOKENS
    ),
    "words": Task(
        make_words_model,
        keep_adapter,
        write_words,
        {"task": "words", "train": TRAIN_PROBLEMS, "weights": WORD_WEIGHTS},
        MAX_RESPONSE,
        NOT_TRAINED_ON,
        threads=min(4, os.cpu_count() or 1),
    ),
}


def family(difficulty: str) -> str:
    """``leg_counting`` of ``leg_counting_3``; the difficulty itself where no family is named."""
    return difficulty.rpartition("_")[0] or difficulty


def make_data(task: Task, sizes: Sizes, data: Path) -> None:
    """Training problems, and two sets to evaluate on that share none with it nor with each other: ``tune.parquet``,
    by which learning rates are chosen, and ``test.parquet``, on which the reported runs are evaluated. A folder that
    holds them already stays as it is; with others the program is left."""
    made = data / "made_by.json"
    about = {"tune": sizes.tune, "test": sizes.test, **task.about}
    about |= {"untrained": sizes.untrained} if sizes.untrained else {}
    if made.exists():
        if json.loads(made.read_text()) != about:
            sys.exit(f"[hdpo] {data} was made with other settings: use another --out, or remove that folder")
        return
    data.mkdir(exist_ok=True, parents=True)
    task.write(sizes, data)
    made.write_text(json.dumps(about) + "\n")
