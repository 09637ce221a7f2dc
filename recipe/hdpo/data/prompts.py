"""Are prompts, ``extra_info`` and ``reward_model`` in the form in which verl and the recipe read them?

What verl does with another form, by its own code: a prompt that is a text or one message becomes a conversation of
letters or keys, ``from`` and ``value`` are unknown to chat templates, and ``extra_info`` as text ends in an
AttributeError. Its filter of long prompts swallows such errors and leaves the row out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recipe.hdpo.algorithm.privileged_prompt import text_at
from recipe.hdpo.data.readers import by_kind, count, read_rows, suspects

CONVERT = "`python -m recipe.hdpo.data --help` says how other forms are turned into verl's"
_MAKE_LIST = 'make it [{"role": "user", "content": TEXT}]'
_REMEDIES = {
    "JSON text": "decode it with json.loads before the file is written",
    "from": 'rename from to role and value to content, with "user" for human and "assistant" for gpt',
    "role": "give every message a role",
    "content": "make the content of every message one text",
    "user": 'give the message that states the problem the role "user"',
    "object": "make it an object (a struct of Arrow)",
}


def prompt_fault(prompt: Any, *, privileged: bool = True) -> tuple[str, str] | None:
    """(what stands in place of a prompt, the way out), or None where verl and the recipe can read it.

    Args:
        prompt: a row's prompt as Python value, in form a list of ``{"role": ..., "content": ...}``.
        privileged: whether privileged prompts are made of it. They need a user's message, and texts.
    """
    if not isinstance(prompt, list) or not prompt:
        what = _no_list(prompt)
        return what, _REMEDIES.get(what, _MAKE_LIST)
    if all(isinstance(message, str) for message in prompt):
        return "a list of texts", _MAKE_LIST
    for message in prompt:
        if not isinstance(message, Mapping):
            return f"a message that is {_name(message)}", _MAKE_LIST
        fault = _message_fault(message, privileged)
        if fault is not None:
            return fault
    if privileged and not any(message["role"] == "user" for message in prompt):
        return f"no user's message (roles: {', '.join(sorted({m['role'] for m in prompt}))})", _REMEDIES["user"]
    return None


def info_fault(value: Any) -> tuple[str, str] | None:
    """(what stands in the place of ``extra_info`` or ``reward_model``, the way out), or None. Nothing may stand there:
    verl takes it for an empty ``extra_info``, and a missing ground truth is counted by itself."""
    if value is None or isinstance(value, Mapping):
        return None
    what = _no_list(value) if isinstance(value, str) else _name(value)
    return what, _REMEDIES.get(what, _REMEDIES["object"])


def check_prompts(frame: Any, key: str, files: str, *, privileged: bool) -> None:
    """Refuse rows whose prompt verl or the recipe cannot read: all counted, the first ones of each kind named.

    Args:
        frame: a Hugging Face ``Dataset``.
        key: the column of prompts, which must be there.
        files: where the rows are from, as the user named it.
        privileged: see :func:`prompt_fault`.
    """
    positions = suspects(frame, key, _is_conversation)
    rows = read_rows(frame, [key], positions)
    faults = {
        i: f for i, row in zip(positions, rows, strict=True) if (f := prompt_fault(row[key], privileged=privileged))
    }
    _refuse(frame, f"column '{key}' (data.prompt_key)", files, faults)


def check_info(frame: Any, name: str, files: str) -> None:
    """Refuse rows whose ``extra_info`` or ``reward_model`` is another thing than an object."""
    positions = suspects(frame, name, _is_object)
    rows = read_rows(frame, [name], positions)
    faults = {i: f for i, row in zip(positions, rows, strict=True) if (f := info_fault(row[name]))}
    _refuse(frame, f"column '{name}'", files, faults)


def blank_problems(frame: Any, key: str) -> list[int]:
    """Positions of the rows whose last user's message shows nothing."""
    positions = suspects(frame, key, _is_conversation)
    return [i for i, row in zip(positions, read_rows(frame, [key], positions), strict=True) if _is_blank(row[key])]


def _refuse(frame: Any, where: str, files: str, faults: dict[int, tuple[str, str]]) -> None:
    if not faults:
        return
    found = by_kind((position, fault[0]) for position, fault in faults.items())
    remedies = dict(faults.values())
    kinds = "; ".join(f"{count({kind: rows}, frame)}: {remedies[kind]}" for kind, rows in found.items())
    raise ValueError(
        f"{len(faults)} of {len(frame)} rows of {files} cannot be used. In {where} stands {kinds}. Mend these rows or "
        f"leave them out ({CONVERT})"
    )


def _no_list(value: Any) -> str:
    if not isinstance(value, str):
        return "one message, not in a list" if isinstance(value, Mapping) else _name(value)
    try:
        return "JSON text" if isinstance(json.loads(value), (dict, list)) else "a text"
    except (ValueError, RecursionError):
        return "a text"


def _name(value: Any) -> str:
    if value is None:
        return "nothing (None)"
    return "an empty list" if value == [] else f"a {type(value).__name__}"


def _message_fault(message: Mapping[str, Any], privileged: bool) -> tuple[str, str] | None:
    role, content = message.get("role"), message.get("content")
    if (role is None or content is None) and (message.get("from") is not None or message.get("value") is not None):
        return "a message with the keys from and value", _REMEDIES["from"]
    if not isinstance(role, str):
        return f"a message whose role is {_name(role)}", _REMEDIES["role"]
    if isinstance(content, str) or (content is None and role == "assistant" and message.get("tool_calls")):
        return None
    if not isinstance(content, list):
        return f"a message whose content is {_name(content)}", _REMEDIES["content"]
    return ("a message whose content is a list of parts", _REMEDIES["content"]) if privileged else None


def _is_blank(prompt: Any) -> bool:
    users = [message for message in prompt if message["role"] == "user"]
    return bool(users) and isinstance(users[-1]["content"], str) and text_at(users[-1], "content") is None


def _is_object(values: pa.Array) -> np.ndarray | None:
    return np.ones(len(values), bool) if pa.types.is_struct(values.type) or pa.types.is_null(values.type) else None


def _is_conversation(values: pa.Array) -> np.ndarray | None:
    """Which prompts are lists of messages, all with texts for role and content, and a user's that shows something."""
    kind = values.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return None
    if any(kind.value_type.get_field_index(name) < 0 for name in ("role", "content")):
        return None
    parents, messages = pc.list_parent_indices(values), pc.list_flatten(values)
    roles, contents = pc.struct_field(messages, "role"), pc.struct_field(messages, "content")
    if not (pa.types.is_string(roles.type) and pa.types.is_string(contents.type)):
        return None
    whole = pc.and_(pc.is_valid(roles), pc.match_substring_regex(contents, "[!-~]"))
    plain = pc.fill_null(whole, False).to_numpy(zero_copy_only=False)
    user = pc.fill_null(pc.equal(roles, "user"), False).to_numpy(zero_copy_only=False)
    rows = parents.to_numpy()
    has_user, all_plain = np.zeros(len(values), bool), np.ones(len(values), bool)
    has_user[rows[user]] = True
    all_plain[rows[~plain]] = False
    return has_user & all_plain
