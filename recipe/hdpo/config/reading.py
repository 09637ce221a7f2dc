"""A node of the composed config as a typed record; every fault is a ValueError that names key, value and remedy."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def read_node(cls: Any, node: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a mapping with exactly its fields, each of the type of its annotation.

    Args:
        where: what the node is called, such as ``hdpo.privileged``.
    """
    hints = typing.get_type_hints(cls)
    known = {field.name for field in fields(cls)}
    unknown, missing = sorted(set(node) - known), sorted(known - set(node))
    require(not unknown, f"{where} has unknown keys {unknown}; known are {sorted(known)}")
    require(not missing, f"{where} lacks {missing}; see recipe/hdpo/config/hdpo/default.yaml for their defaults")
    values = {}
    for name in known:
        hint, value = hints[name], node[name]
        if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
            require(isinstance(value, Mapping), f"{where}.{name} must be a group of keys, not {value!r}")
            values[name] = read_node(hint, value, f"{where}.{name}")
        else:
            values[name] = _typed(value, hint, f"{where}.{name}")
    return cls(**values)


def _typed(value: Any, hint: Any, where: str) -> Any:
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}={value} must be a finite number")
    allowed = tuple(typing.get_origin(each) or each for each in allowed)
    if type(value) in allowed:
        return value
    names = " or ".join("null" if t is type(None) else t.__name__ for t in allowed)
    raise ValueError(f"{where}={value!r} must be of type {names}")


def require(condition: bool, message: str) -> None:
    """ValueError unless the condition holds."""
    if not condition:
        raise ValueError(message)


def one_of(where: str, value: str, choices: tuple[str, ...]) -> None:
    """ValueError for a value that is none of the choices."""
    require(value in choices, f"{where}={value!r} must be one of {', '.join(choices)}")
