"""What verl's loggers wrote, read back: (step, metric) -> value."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

Values = dict[tuple[int, str], float]

# An offline run of W&B is a log in LevelDB's format, with a header before it and a Record in each entry. W&B's own
# reader is a program without an output for other programs.
MAGIC, BLOCK = b":W&B\xe1\xbe\x00", 32768
FRAGMENT = struct.Struct("<IHB")  # checksum, length, kind
WHOLE, LAST = 1, 4


def tensorboard_values(folder: Path) -> Values:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {(e.step, name): e.value for name in events.Tags()["scalars"] for e in events.Scalars(name)}


def wandb_values(folder: Path) -> Values:
    """``folder`` is WANDB_DIR."""
    [path] = folder.glob("wandb/offline-run-*/*.wandb")
    found: Values = {}
    for record in wandb_records(path.read_bytes()):
        row = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        found |= {(numbers["_step"], name): value for name, value in numbers.items()}
    return found


def wandb_records(data: bytes) -> Iterator[Record]:
    assert data.startswith(MAGIC)
    at, entry = len(MAGIC), b""
    while at < len(data):
        if BLOCK - at % BLOCK < FRAGMENT.size:  # padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = FRAGMENT.unpack_from(data, at)
        at += FRAGMENT.size + length
        entry += data[at - length : at]
        if kind in (WHOLE, LAST):
            yield Record.FromString(entry)
            entry = b""
