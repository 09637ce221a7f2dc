"""What travels from the rollout workers through TransferQueue to the trainer and on to the actor: keys, tags, fields.

A kept trajectory (x, y) is a privileged row: the student's plain prompt, the response ids, and the teacher's privileged
prompt, token ids all three, and a mask of the response's tokens. It stands in its prompt's group under a key of verl's
format. Each group also has one record, a tag without fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from recipe.hdpo.algorithm.cliff import GroupRecord

PRIVILEGED_TAG = "hdpo_privileged"
RECORD_TAG = "hdpo_record"
STUDENT_PROMPT, TEACHER_PROMPT, RESPONSE = "hdpo_student_prompts", "hdpo_teacher_prompts", "hdpo_responses"
TEXTS = [STUDENT_PROMPT, TEACHER_PROMPT, RESPONSE]
# Of the response's tokens, 1 for those that the model wrote, 0 for those of a tool or an environment.
RESPONSE_MASK = "hdpo_response_mask"
FIELDS = [*TEXTS, RESPONSE_MASK]
# What the update said of a kept trajectory's distilled tokens, where it is recorded (training/token_record.py).
TOKEN_RECORD = "hdpo_token_record"

# In the tag of a kept trajectory: the source of what its privileged prompt showed.
SOURCE = "hdpo_source"

# The partition of TransferQueue for cliffs whose privileged rollouts no step waits for (asynchronous trainers), each a
# group of its own; what verl samples, counts and evicts lies in the partition "train".
TRAIN, CLIFFS = "train", "hdpo_cliffs"

# Column of a prompt, to the rollout workers: a cliff that has had its rollouts, for privileged ones only.
REISSUED = "hdpo_reissued"
# Column of such a prompt: the uid of the group whose rollouts failed.
CLIFF_UID = "hdpo_cliff_uid"
# Column of such a prompt: the token ids that its plain rollouts read, made by their agent loop.
PLAIN_PROMPT_IDS = "hdpo_plain_prompt_ids"
# Column of such a prompt: its failed attempts with feedback, as recipe/hdpo/algorithm/feedback.py writes them.
ATTEMPTS = "hdpo_attempts"
OF_REISSUED = (CLIFF_UID, PLAIN_PROMPT_IDS, ATTEMPTS)

# Extra info of a batch, from the trainer to the actor: a KeptRows.
KEPT = "hdpo_kept"


@dataclass(frozen=True)
class KeptRows:
    """What an update of the actor is told of the step's kept trajectories; their tokens wait in TransferQueue.

    Example:
        ``KeptRows(keys=["3f2a_8_0", "77c1_9_0"], tokens=[412, 388])``

    Attributes:
        keys: TransferQueue keys of all kept trajectories.
        tokens: what both forwards together read of each, for dealing them to ranks evenly.
        measure_gradients: whether the gradient norm of each term is measured in this update.
        factor: what lambda is multiplied by in this update (``algorithm/coefficient.py``).
        partition: of TransferQueue, in which they wait.
        recorded: keys of those whose single tokens are recorded.
    """

    keys: list[str]
    tokens: list[int]
    measure_gradients: bool = False
    factor: float = 1.0
    partition: str = TRAIN
    recorded: tuple[str, ...] = ()


def row_key(uid: str, session_id: int) -> str:
    """verl's key format, ``{uid}_{session}_{index}``; the part before the first ``_`` finds a group's rows."""
    return f"{uid}_{session_id}_0"


def record_key(uid: str) -> str:
    """Key of a group's record."""
    return f"{uid}_hdpo_0"


def privileged_fields(
    student_prompt: list[int], teacher_prompt: list[int], response: list[int], response_mask: list[int]
) -> TensorDict:
    """TransferQueue fields of one kept trajectory."""
    values = (student_prompt, teacher_prompt, response, response_mask)
    row = {name: torch.tensor(ids, dtype=torch.int64) for name, ids in zip(FIELDS, values, strict=True)}
    return tu.list_of_dict_to_tensordict([row])


def privileged_tag(
    student_prompt: list[int],
    teacher_prompt: list[int],
    response: list[int],
    response_mask: list[int] | None = None,
    weights: int | None = None,
    source: str | None = None,
) -> dict[str, Any]:
    """TransferQueue tag of one kept trajectory; ``seq_len`` is what both forwards together read.

    Args:
        response_mask: as in the fields; None where every token is distilled.
        weights: the version of the weights that the response was begun with, verl's number of the step that made them.
        source: of what the privileged prompt showed.
    """
    seq_len = len(student_prompt) + len(teacher_prompt) + 2 * len(response)
    distilled = len(response) if response_mask is None else sum(response_mask)
    known = {"min_global_steps": weights, SOURCE: source}
    tag = {"status": "success", PRIVILEGED_TAG: True, "seq_len": seq_len, "num_distilled": distilled}
    return tag | {name: value for name, value in known.items() if value is not None}


def cliff_tag(step: int) -> dict[str, Any]:
    """TransferQueue tag of a cliff in :data:`CLIFFS`, as verl's of a prompt that goes out in ``step``."""
    return {"is_prompt": True, "status": "pending", "global_steps": step}


def cliff_fields(prompt: Mapping[str, Any]) -> TensorDict:
    """TransferQueue fields of a cliff in :data:`CLIFFS`: its data row, from which a resumed run re-issues it."""
    return tu.list_of_dict_to_tensordict([dict(prompt)])


def record_tag(record: GroupRecord) -> dict[str, Any]:
    """TransferQueue tag of a group's record."""
    return {RECORD_TAG: asdict(record)}


def record_of(tag: Mapping[str, Any]) -> GroupRecord | None:
    """The record that a tag holds; None for the tag of a row."""
    return GroupRecord(**tag[RECORD_TAG]) if RECORD_TAG in tag else None


def split_batch(batch: KVBatchMeta) -> tuple[KVBatchMeta, KVBatchMeta, dict[str, GroupRecord]]:
    """A sampled batch as rollout rows, kept privileged rows, and the records of its groups by key.

    Rows come in order of problem and rollout number, not of arrival, so that sums over them can be repeated.
    """
    records = {k: r for k, tag in zip(batch.keys, batch.tags, strict=True) if (r := record_of(tag))}
    problems = {key.split("_")[0]: record.prompt_id for key, record in records.items()}

    def order(row: tuple[str, dict]) -> tuple[str, str, list[int]]:
        uid, *numbers = row[0].split("_")
        return problems.get(uid, ""), uid, [int(number) for number in numbers]

    found = sorted(((k, t) for k, t in zip(batch.keys, batch.tags, strict=True) if k not in records), key=order)
    kept = [key for key, tag in found if tag.get(PRIVILEGED_TAG, False)]
    rollouts = [key for key, tag in found if not tag.get(PRIVILEGED_TAG, False)]
    return batch.select_keys(rollouts), batch.select_keys(kept), records
