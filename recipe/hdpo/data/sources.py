"""Rows of a data set as people have it: JSON lines, JSON, CSV, parquet, or a data set on the Hugging Face hub.

Every reader gives plain dicts, in order, and raises DataError with the file and the line or the way out.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from recipe.hdpo.data.rows import DataError

Row = dict[str, Any]
# Rows of which the columns are looked at before any is converted.
LOOKED_AT = 100


def read(source: str, *, config: str | None = None, split: str = "train", keys: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a file, by the end of its name, or of a data set on the hub (OWNER/NAME).

    Args:
        config, split: of a data set on the hub.
        keys: dotted keys; from the hub no other columns are fetched, as long as all are there.
    """
    path = Path(source)
    reader = READERS.get(path.suffix)
    if reader is None and not path.exists() and source.count("/") == 1 and not source.startswith((".", "/", "~")):
        return read_hub(source, config, split, keys)
    if path.is_dir():
        raise DataError(f"{source} is a folder: name its files, for example {source.rstrip('/')}/*.parquet")
    if reader is None:
        raise DataError(
            f"{source}: the name must end in {', '.join(READERS)}, or be a data set of the hub (OWNER/NAME)"
        )
    if not path.is_file():
        raise DataError(f"{source}: no such file")
    return _not_empty(reader(path), source)


def read_hub(name: str, config: str | None = None, split: str = "train", keys: Sequence[str] = ()) -> Iterator[Row]:
    """Rows streamed from the Hugging Face hub."""
    from datasets import load_dataset

    try:
        stream = load_dataset(name, config, split=split, streaming=True)
        there = stream.column_names or ()
        columns = list(dict.fromkeys(key if key in there else key.split(".")[0] for key in keys))
        yield from stream.select_columns(columns) if set(columns) <= set(there) else stream
    except Exception as error:  # the hub client raises errors of many libraries
        reason = str(error).strip().splitlines()[:1]
        raise DataError(
            f"cannot read {name} from the Hugging Face hub ({type(error).__name__}: {''.join(reason)[:200]}): check "
            "the network and the names of data set, --config and --split, or pass a file of it in place of its name"
        ) from error


def read_parquet(path: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a whole parquet file ({error}); get it again") from error


def read_jsonl(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        for number, line in _lines(path, file):
            if line.strip():
                yield _object(_json(f"{path}, line {number}", line), f"{path}, line {number}")


def read_json(path: Path) -> Iterator[Row]:
    """A list of objects, or JSON lines."""
    with _opened(path) as file:
        text = "".join(line for _, line in _lines(path, file))
    if not text.lstrip().startswith("["):
        return read_jsonl(path)
    rows = _json(str(path), text)
    return (_object(row, f"{path}, entry {number}") for number, row in enumerate(rows))


def read_csv(path: Path) -> Iterator[Row]:
    """Every value is a text, as it is written."""
    csv.field_size_limit(sys.maxsize)
    with _opened(path, newline="") as file:
        reader = csv.reader((line for _, line in _lines(path, file)), strict=True)
        try:
            header = next(reader, [])
            twice = {name for name in header if header.count(name) > 1}
            if twice:
                raise DataError(f"{path}: two columns are called {', '.join(sorted(twice))}: rename one")
            for values in reader:
                if values and len(values) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(values)} values for {len(header)} columns: put values "
                        "with commas in quotes"
                    )
                if values:
                    yield dict(zip(header, values, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".parquet": read_parquet,
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
}


def on_hub(source: str) -> bool:
    """Whether a source is a data set of the hub, by its name."""
    return Path(source).suffix not in READERS


def with_columns(rows: Iterable[Row], source: str, keys: Sequence[str]) -> Iterator[Row]:
    """The rows, where each dotted key is there in one of the first; else DataError with the columns that there are."""
    rows = iter(rows)
    first = list(itertools.islice(rows, LOOKED_AT))
    missing = [key for key in keys if not any(has(row, key) for row in first)]
    if missing:
        there = dict.fromkeys(name for row in first for name in names(row))
        raise DataError(f"{source}: no column {', '.join(missing)}; there are {', '.join(there)}")
    return itertools.chain(first, rows)


def value_at(row: Any, key: str) -> Any:
    """The value at a dotted key, or None; an object that is written as JSON text is looked into."""
    return next(_values(row, key.split(".")), None)


def has(row: Any, key: str) -> bool:
    """Whether a dotted key is there, whatever its value."""
    return any(True for _ in _values(row, key.split(".")))


def _values(row: Any, parts: list[str]) -> Iterator[Any]:
    """What stands at a key. A name may have dots itself, as those of pandas.json_normalize do: the longest first."""
    row = _as_object(row)
    if not isinstance(row, dict):
        return
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if name in row:
            yield from _values(row[name], parts[end:]) if parts[end:] else [row[name]]


def names(row: Any, depth: int = 2) -> Iterator[str]:
    """The dotted keys of a row, those of objects in it, too."""
    for name, value in row.items():
        inner = _as_object(value) if depth > 1 else None
        if isinstance(inner, dict) and inner:
            yield from (f"{name}.{below}" for below in names(inner, depth - 1))
        else:
            yield str(name)


def _as_object(value: Any) -> Any:
    if not (isinstance(value, str) and value.lstrip().startswith("{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _not_empty(rows: Iterator[Row], source: str) -> Iterator[Row]:
    first = next(rows, None)
    if first is None:
        raise DataError(f"{source}: the file has no rows")
    yield first
    yield from rows


def _opened(path: Path, newline: str | None = None) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig", newline=newline)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _lines(path: Path, file: TextIO) -> Iterator[tuple[int, str]]:
    try:
        yield from enumerate(file, start=1)
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DataError(f"{where}: JSON that nests too deep") from error
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: not a JSON object but a {type(value).__name__}")
    return value
