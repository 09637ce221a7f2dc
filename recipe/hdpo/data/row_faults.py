"""Why a row cannot be written in a schema: nothing of a row is dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from recipe.hdpo.algorithm.privileged_prompt import text_at, why_no_text
from recipe.hdpo.data.prompts import info_fault, prompt_fault


def row_fault(row: Any, schema: pa.Schema) -> str | None:
    """Why a row cannot be written, or None: keys that the schema has not, no prompt, or no ground truth."""
    if not isinstance(row, Mapping):
        return f"it is a {type(row).__name__}, not a dict"
    unknown = list(_unknown(row, schema))
    if unknown:
        return f"no place for {', '.join(unknown)}; the schema has {', '.join(_keys(schema))}"
    fault = prompt_fault(row.get("prompt"))
    if fault is not None:
        return f"prompt: there stands {fault[0]}; {fault[1]}"
    fault = info_fault(row.get("reward_model"))
    if fault is not None:
        return f"reward_model: there stands {fault[0]}; {fault[1]}"
    if text_at(row, "reward_model.ground_truth") is None:
        return f"reward_model.ground_truth: there stands {why_no_text(row, 'reward_model.ground_truth')}"
    return None


def _unknown(value: Any, fields: Any, path: str = "") -> Iterator[str]:
    """Dotted keys of a value that its Arrow type has not."""
    if not isinstance(value, Mapping):
        return
    types = {field.name: field.type for field in fields}
    for name, inner in value.items():
        if name not in types:
            yield f"{path}{name}"
        elif pa.types.is_struct(types[name]):
            yield from _unknown(inner, types[name], f"{path}{name}.")
        elif pa.types.is_list(types[name]) and isinstance(inner, list):
            found = (key for item in inner for key in _unknown(item, types[name].value_type, f"{path}{name}."))
            yield from dict.fromkeys(found)


def _keys(fields: Any, path: str = "") -> Iterator[str]:
    for field in fields:
        if pa.types.is_struct(field.type):
            yield from _keys(field.type, f"{path}{field.name}.")
        else:
            yield f"{path}{field.name}"
