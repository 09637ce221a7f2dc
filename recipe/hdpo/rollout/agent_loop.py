"""The rollout hook: re-issues a cliff with its privileged prompt as soon as the prompt's last rollout has settled.

verl's agent-loop worker runs one prompt's K rollouts side by side and publishes the prompt as ``finished`` when all
have settled. Here the rollout that settles last and leaves an all-failed group runs the privileged rollouts before it
returns: other prompts go on rolling out, and ``finished`` covers the privileged rows too, with nothing of verl's flow
copied.

In TransferQueue a prompt's group then holds, besides verl's rows ``{uid}_{session}_0`` of sessions 0 .. K-1:

- one row per kept privileged rollout (``privileged_rollouts.py``);
- one tag without fields, ``{uid}_hdpo_0``, the :class:`~recipe.hdpo.algorithm.cliff.GroupRecord`.

With ``schedule=next_step`` and under an asynchronous trainer no group waits for them: see ``reissue.py``.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import asdict
from typing import Any

import ray
import transfer_queue as tq
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import RolloutGroup, is_success
from recipe.hdpo.algorithm.feedback import Attempt
from recipe.hdpo.algorithm.privileged_prompt import prompt_id, text_at
from recipe.hdpo.rollout.outputs import UnscoredRollout, single_output
from recipe.hdpo.rollout.privileged_agent import MARK, PrivilegedRollout
from recipe.hdpo.rollout.reissue import ReissuingWorker

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))


class HDPOAgentLoopWorker(ReissuingWorker):
    """verl's agent-loop worker with privileged rollouts for cliffs. There are none in validation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Groups whose rollouts are running, by uid. Training only.
        self.groups: dict[str, RolloutGroup] = {}
        self.greedy_scores = {}

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        if trajectory["validate"]:
            return await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        uid = prompt["uid"]
        size = int(prompt.get("__rollout_n__", self.config.actor_rollout_ref.rollout.n))
        group = RolloutGroup(uid=uid, size=size, agent_name=prompt["agent_name"])
        if prompt.pop(transfer.REISSUED, False):
            return await self._run_reissued(group, prompt, dict(sampling_params), trajectory, trace)
        self.groups[uid] = group
        try:
            await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        finally:
            del self.groups[uid]

    async def _run_agent_loop(
        self, sampling_params: dict, trajectory: dict, *, agent_name: str, trace: bool = True, **kwargs: Any
    ) -> None:
        group = self.groups.get(kwargs["uid"])
        try:
            await self._run_seeded(sampling_params, trajectory, agent_name=agent_name, trace=trace, **kwargs)
        except Exception as error:
            if group is not None:
                group.lose(error, time.time(), unscored=isinstance(error, UnscoredRollout))
            raise
        finally:
            if group is not None and group.settle(time.time()):
                await self._finish_group(group, sampling_params, trajectory, trace, kwargs)

    async def _agent_loop_postprocess(self, output: Any, validate: bool, **kwargs: Any) -> None:
        privileged: PrivilegedRollout | None = kwargs.pop(MARK, None)
        group = self.groups.get(kwargs["uid"]) if privileged is None else privileged.group
        outputs = output if isinstance(output, list) else [output]
        if group is not None and outputs:
            single_output(outputs, group.agent_name, text_only=self.hdpo.privileged.n > 0)
        if privileged is not None:
            return await self._keep(outputs[0], privileged, kwargs)
        if outputs:
            await self._score(outputs, validate, kwargs)
        await super()._agent_loop_postprocess(output, validate, **kwargs)
        if group is not None and outputs:
            # Awaited first: others of the group count meanwhile.
            cut_off = await self._was_cut_off(outputs[-1], group.agent_name)
            group.rewards[kwargs["session_id"]] = outputs[-1].reward_score
            group.student_prompt_ids = list(outputs[-1].prompt_ids)
            group.truncated += cut_off
            self._note_feedback(group, outputs[-1], kwargs["session_id"])
            solved = is_success(outputs[-1].reward_score, self.hdpo.success_reward)
            if solved and not cut_off and self.hdpo.privileged.n > 0:
                group.plain_signs.append(asdict(await self.leak_reader.signs(outputs[-1], kwargs)))

    def _note_feedback(self, group: RolloutGroup, output: AgentLoopOutput, session: int) -> None:
        """Remember a rollout and what the reward function said of it, where privileged prompts show that."""
        if not self.hdpo.privileged.of_feedback:
            return
        said = text_at(output.extra_fields.get("reward_extra_info") or {}, self.hdpo.privileged.feedback_key)
        if said is not None:
            # As verl's reward managers decode it.
            text = self.tokenizer.decode(output.response_ids, skip_special_tokens=True)
            group.attempts[session] = Attempt(text, said)

    async def _finish_group(
        self, group: RolloutGroup, sampling_params: dict, trajectory: dict, trace: bool, kwargs: dict
    ) -> None:
        """Run a cliff's privileged rollouts and leave the group's record. Never raises: the group's normal rollouts
        stay valid whatever happens here."""
        group.prompt_was_cut = self._prompt_was_cut(group.student_prompt_ids, group.agent_name, kwargs)
        problem = prompt_id(kwargs["raw_prompt"], str(kwargs.get("data_source", "")))
        record = group.record(problem, self.hdpo.success_reward)
        asks = record.cliff and self.hdpo.privileged.n > 0
        try:
            if asks and self.partition == transfer.CLIFFS:
                await self._let_follow(group, sampling_params, trajectory, trace, kwargs)
            elif asks and self.hdpo.privileged.schedule == "same_step":
                await self._run_privileged(group, record, sampling_params, trajectory, trace, kwargs)
            elif asks:
                record.plain_prompt_ids, record.attempts = group.student_prompt_ids, self._shown_attempts(group)
        except Exception as error:
            record.lose_privileged(error)
            logger.exception(f"privileged rollouts of prompt {group.uid} failed; its normal rollouts are kept")
        record.settled_at, record.ended_at = group.settled_at, time.time()
        refills = self.partition == transfer.TRAIN and self.config.trainer.v1.sampler.sync_refill_failed_groups
        if not group.rewards and refills:
            # The synchronous trainer draws another prompt for an empty group; a record would make it look non-empty.
            return
        await tq.async_kv_put(key=transfer.record_key(group.uid), partition_id="train", tag=transfer.record_tag(record))


class HDPOAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager over :class:`HDPOAgentLoopWorker`; ``rollout.agent.agent_loop_manager_class`` names it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(HDPOAgentLoopWorker)
