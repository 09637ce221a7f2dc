"""A cliff that has had its rollouts, as a prompt of its own: in the next step, or beside an asynchronous trainer's.

It is a group with a uid of its own, which holds privileged rollouts alone. With ``schedule=next_step`` the trainer
sends it out beside the next step's prompts. Under an asynchronous trainer it goes into a partition of its own
(:data:`recipe.hdpo.transfer.CLIFFS`), and its privileged rollouts follow there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid

import transfer_queue as tq

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord, RolloutGroup
from recipe.hdpo.algorithm.feedback import first_attempts, from_json, to_json
from recipe.hdpo.algorithm.privileged_prompt import prompt_id
from recipe.hdpo.rollout.privileged_rollouts import PrivilegedWorker

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

# Columns of a re-issued prompt that no data row has.
OWN_COLUMNS = ("agent_name", "__rollout_n__", "__do_sample__", *transfer.OF_REISSUED)


class ReissuingWorker(PrivilegedWorker):
    """Runs the privileged rollouts of cliffs whose own group is finished."""

    def _shown_attempts(self, group: RolloutGroup) -> str:
        return to_json(first_attempts(group.attempts, self.hdpo.privileged.of_feedback))

    async def _let_follow(
        self, group: RolloutGroup, sampling_params: dict, trajectory: dict, trace: bool, kwargs: dict
    ) -> None:
        """Start a cliff's privileged rollouts and go on. The cliff is on record before its own group is finished: a
        run that is resumed from a checkpoint in between re-issues it."""
        uid = str(uuid.uuid4())
        row = {k: v for k, v in kwargs.items() if k not in ("session_id", "global_steps")}
        row |= {"uid": uid, "agent_name": group.agent_name, transfer.PLAIN_PROMPT_IDS: group.student_prompt_ids}
        row[transfer.ATTEMPTS] = self._shown_attempts(group)
        row[transfer.CLIFF_UID] = group.uid
        await tq.async_kv_batch_put(
            keys=[uid],
            fields=transfer.cliff_fields({**row, transfer.REISSUED: True}),
            tags=[transfer.cliff_tag(trajectory["step"])],
            partition_id=self.partition,
        )
        follower = RolloutGroup(uid=uid, size=group.size, agent_name=group.agent_name)
        prompt = {**row, "global_steps": trajectory["step"]}
        task = asyncio.create_task(self._run_reissued(follower, prompt, dict(sampling_params), trajectory, trace))
        self.background_tasks.add(task)
        task.add_done_callback(self.background_tasks.discard)

    async def _run_reissued(
        self, group: RolloutGroup, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool
    ) -> None:
        """A cliff that has had its rollouts: its privileged ones, and no others. Never raises, and always ends as
        ``finished``: the trainer takes it from there."""
        kwargs = {k: v for k, v in prompt.items() if k not in OWN_COLUMNS}
        problem = prompt_id(kwargs["raw_prompt"], str(kwargs.get("data_source", "")))
        # Not in a checkpoint of a version that did not write it.
        cliff_uid = prompt.get(transfer.CLIFF_UID, "")
        record = GroupRecord(problem, cliff=False, solved=False, reissued=True, uid=group.uid, cliff_uid=cliff_uid)
        await tq.async_kv_put(key=group.uid, partition_id=self.partition, tag={"status": "running"})
        try:
            # Not in a checkpoint of a version that did not write them.
            group.student_prompt_ids = list(prompt[transfer.PLAIN_PROMPT_IDS])
            # Nor these, and then there are none to show.
            group.attempts = dict(enumerate(from_json(prompt.get(transfer.ATTEMPTS) or "[]")))
            # A run that goes on from a checkpoint may have switched them off.
            if self.hdpo.privileged.n > 0:
                await self._run_privileged(group, record, sampling_params, trajectory, trace, kwargs)
        except Exception as error:
            record.lose_privileged(error)
            logger.exception(f"privileged rollouts of the re-issued cliff {problem} failed")
        record.settled_at = record.ended_at = time.time()
        tag = transfer.record_tag(record)
        await tq.async_kv_put(key=transfer.record_key(group.uid), partition_id=self.partition, tag=tag)
        await tq.async_kv_put(key=group.uid, partition_id=self.partition, tag={"status": "finished"})
