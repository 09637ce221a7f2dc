"""Cliffs that wait for the next step, where they are re-issued (``hdpo.privileged.schedule=next_step``).

A cliff is known when the last of its rollouts has settled, often the last of the whole batch, so that privileged
rollouts in the same step lengthen it. A step later they run beside that step's prompts, with that step's weights: they
are as much on policy, and nothing waits for them.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord

logger = logging.getLogger(__name__)

CLIFFS_FILE = "hdpo_waiting_cliffs.pt"


@dataclass
class WaitingCliffs:
    """The data rows of one step's prompts, and of the cliffs among the last step's.

    Attributes:
        asked: batches of this step's prompts as verl sent them to the rollout, one row a prompt.
        rows: the last step's cliffs, one data row a cliff; None for no cliff.
    """

    asked: list[TensorDict] = field(default_factory=list)
    rows: TensorDict | None = None

    def __len__(self) -> int:
        return 0 if self.rows is None else len(self.rows)

    def take(self, step: int) -> TensorDict | None:
        """The waiting rows as prompts of ``step``, under uids of their own; afterwards none waits."""
        rows, self.rows = self.rows, None
        if rows is not None:
            tu.assign_non_tensor_stack(rows, transfer.CLIFF_UID, list(rows["uid"]))
            tu.assign_non_tensor_stack(rows, "uid", [str(uuid.uuid4()) for _ in range(len(rows))])
            tu.assign_non_tensor_data(rows, "global_steps", step)
            tu.assign_non_tensor_data(rows, transfer.REISSUED, True)
        return rows

    def remember(self, records: Mapping[str, GroupRecord]) -> None:
        """Let the cliffs of a settled step wait.

        Args:
            records: of the step's groups, by :func:`~recipe.hdpo.transfer.record_key`.

        Raises:
            KeyError: a cliff that was not among the step's prompts.
        """
        cliffs = {key for key, record in records.items() if record.cliff}
        known = {key: records[key] for key in cliffs}
        found = []
        for batch in self.asked:
            keys = [transfer.record_key(uid) for uid in batch["uid"]]
            chosen = [row for row, key in enumerate(keys) if key in cliffs]
            cliffs -= set(keys)
            if chosen:
                rows = tu.index_select_tensor_dict(batch, chosen)
                own = [known[keys[row]] for row in chosen]
                tu.assign_non_tensor_stack(rows, transfer.PLAIN_PROMPT_IDS, [each.plain_prompt_ids for each in own])
                tu.assign_non_tensor_stack(rows, transfer.ATTEMPTS, [each.attempts for each in own])
                found.append(rows)
        if cliffs:
            raise KeyError(f"cliffs that are no prompts of this step: {sorted(cliffs)}")
        self.asked, self.rows = [], tu.concat_tensordict(found) if found else None

    def save(self, folder: str) -> None:
        """Write the waiting rows into a checkpoint folder; the file is whole or absent."""
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, CLIFFS_FILE)
        torch.save(self.rows, path + ".tmp")
        os.replace(path + ".tmp", path)

    def load(self, folder: str, expected: bool = True) -> None:
        """Read what :meth:`save` wrote. A checkpoint without the file leaves none waiting.

        Args:
            expected: whether that is said.

        Raises:
            ValueError: the file cannot be read.
        """
        path = os.path.join(folder, CLIFFS_FILE)
        if not os.path.exists(path):
            if expected:
                logger.warning(f"no {path}: that run re-issued cliffs in the same step, so none waits for the next one")
            return
        try:
            # As verl reads the data loader's state beside it: rows hold any Python values.
            self.rows = torch.load(path, weights_only=False)
        except Exception as error:
            raise ValueError(
                f"{path} cannot be read ({type(error).__name__}: {error}): it was cut short. Resume from another "
                "checkpoint; or remove that file, and the last step's cliffs are not re-issued"
            ) from error
