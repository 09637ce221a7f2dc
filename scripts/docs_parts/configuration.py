"""Tables of the configuration page, from the comments of the recipe's YAML files.

In these files every field has its comment above it, and a comment above the first field says what the file is.
"""

from __future__ import annotations

import re
from pathlib import Path

from omegaconf import OmegaConf

from examples.training import ROOT
from scripts.docs_parts.marks import table

CONFIG = ROOT / "recipe/hdpo/config"
_FIELD = re.compile(r"^( *)([\w@/]+):(?: +(.*))?$")


def fields(path: Path) -> list[tuple[str, str, str]]:
    """The fields of a YAML file that have a value: dotted key, value, comment."""
    found: list[tuple[str, str, str]] = []
    parents: list[tuple[int, str, list[str]]] = []
    comment: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        field = _FIELD.match(line)
        if line.lstrip().startswith("#"):
            comment.append(line.strip("# "))
        elif field:
            indent, name, value = len(field[1]), field[2], field[3]
            parents = [*(p for p in parents if p[0] < indent), (indent, name, comment)]
            if value is not None:
                # A group of one field may have its comment above the group.
                said = next((c for _, _, c in reversed(parents) if c), [])
                found.append((".".join(name for _, name, _ in parents), value, " ".join(said)))
            comment = []
        elif not line.strip() and not found and not parents:
            comment = []  # what the file is, not what its first field is
    return found


def about(path: Path) -> str:
    """What a file's first comment says."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line != "# @package _global_"]
    count = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.strip("# ") for line in lines[:count])


def _cell(text: str) -> str:
    return text.replace("||", "‖").replace("|", "\\|").replace("<", "&lt;")


def knobs_table(group: str = "") -> str:
    """Every knob under `hdpo`, or under `hdpo.GROUP`, with its default and its comment."""
    body = [
        [f"`{key}`", f"`{value}`", _cell(comment)]
        for key, value, comment in fields(CONFIG / "hdpo/default.yaml")
        if key.rpartition(".")[0] == group
    ]
    return table(["`hdpo.`", "default", "meaning"], body)


def controls_table() -> str:
    """Every control: what it changes, and what it is and costs."""
    body = []
    for path in sorted((CONFIG / "control").glob("*.yaml")):
        node = OmegaConf.load(path).hdpo
        changes = ", ".join(f"`hdpo.{key}={value}`" for key, value in _leaves(node))
        body.append([f"`{path.stem}`", changes, _cell(about(path))])
    return table(["`+control=`", "short for", "what it is, and what it costs"], body)


def _leaves(node, prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in node.items():
        nested = OmegaConf.is_dict(value)
        value = f"[{','.join(value)}]" if OmegaConf.is_list(value) else value
        found += _leaves(value, f"{prefix}{key}.") if nested else [(prefix + key, value)]
    return found


def switches_table() -> str:
    """What `+use=hdpo` sets in a verl config."""
    body = [[f"`{key}`", f"`{value}`", _cell(comment)] for key, value, comment in fields(CONFIG / "use/hdpo.yaml")]
    return table(["key", "value", "why"], body)
