"""The rollout hook: re-issues a cliff with its privileged prompt as soon as the prompt's last rollout has settled.

verl's agent-loop worker runs one prompt's K rollouts side by side and publishes the prompt as ``finished`` when all
have settled. Here the rollout that settles last and leaves an all-failed group runs the privileged rollouts before it
returns: other prompts go on rolling out, and ``finished`` covers the privileged rows too, with nothing of verl's flow
copied.

In TransferQueue a prompt's group then holds, besides verl's rows ``{uid}_{session}_0`` of sessions 0 .. K-1:

- one row per kept privileged rollout, ``{uid}_{K + j}_0``, with the fields of :mod:`recipe.hdpo.rows`;
- one tag without fields, ``{uid}_hdpo_0``, the :class:`~recipe.hdpo.metrics.GroupRecord`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from typing import Any

import ray
import transfer_queue as tq
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from recipe.hdpo import rows
from recipe.hdpo.cliff import RolloutGroup, is_success
from recipe.hdpo.config.checks import read_hdpo
from recipe.hdpo.config.rules import max_privileged_prompt_length
from recipe.hdpo.metrics import GroupRecord
from recipe.hdpo.privileged import NoPrivilegedText, PrivilegedPromptBuilder, compile_template, prompt_id

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

PRIVILEGED_AGENT = "hdpo_privileged_agent"


class PrivilegedPromptTooLong(ValueError):
    """The privileged prompt leaves no room for a full response."""


@register(PRIVILEGED_AGENT)
class PrivilegedAgentLoop(SingleTurnAgentLoop):
    """verl's single-turn agent with one difference: a prompt that is too long is refused, never cut."""

    def _cap_text_prompt_length(self, prompt_ids: list[int]) -> list[int]:
        hdpo = read_hdpo(self.config)
        longest = max_privileged_prompt_length(self.config, hdpo)
        if longest is not None and len(prompt_ids) > longest:
            raise PrivilegedPromptTooLong(f"the privileged prompt has {len(prompt_ids)} tokens; the limit is {longest}")
        return prompt_ids


@dataclass
class PrivilegedRollout:
    """What the post-processing of a privileged rollout needs besides verl's arguments."""

    group: RolloutGroup
    record: GroupRecord
    plain_messages: list[dict]


# ray.remote wraps the class; the plain class underneath is what can be extended.
_AgentLoopWorker = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class HDPOAgentLoopWorker(_AgentLoopWorker):
    """verl's agent-loop worker with privileged rollouts for cliffs. Validation is left alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hdpo = read_hdpo(self.config)
        options = self.hdpo.privileged
        self.prompt_builder = PrivilegedPromptBuilder(
            template=compile_template(options.template, options.placement),
            placement=options.placement,
            source=options.source,
            solution_key=options.solution_key,
            answer_key=options.answer_key,
        )
        # Groups whose rollouts are on their way, by uid. Training only.
        self.groups: dict[str, RolloutGroup] = {}

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        if trajectory["validate"]:
            return await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        uid = prompt["uid"]
        size = prompt.get("__rollout_n__", self.config.actor_rollout_ref.rollout.n)
        self.groups[uid] = RolloutGroup(uid=uid, size=int(size))
        try:
            await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        finally:
            del self.groups[uid]

    async def _run_agent_loop(
        self, sampling_params: dict, trajectory: dict, *, agent_name: str, trace: bool = True, **kwargs: Any
    ) -> None:
        run = super()._run_agent_loop
        group = self.groups.get(kwargs["uid"])
        try:
            await run(sampling_params, trajectory, agent_name=agent_name, trace=trace, **kwargs)
        finally:
            if group is not None and group.settle(time.time()):
                await self._finish_group(group, sampling_params, trajectory, trace, kwargs)

    async def _agent_loop_postprocess(self, output: Any, validate: bool, **kwargs: Any) -> None:
        privileged: PrivilegedRollout | None = kwargs.pop("hdpo_privileged_rollout", None)
        if privileged is not None:
            return await self._keep_if_solved(output, privileged, kwargs)
        await super()._agent_loop_postprocess(output, validate, **kwargs)
        group = self.groups.get(kwargs["uid"])
        if group is not None:
            final = output[-1] if isinstance(output, list) else output
            group.rewards[kwargs["session_id"]] = float(final.reward_score)
            group.student_prompt_ids = list(final.prompt_ids)

    async def _finish_group(
        self, group: RolloutGroup, sampling_params: dict, trajectory: dict, trace: bool, kwargs: dict
    ) -> None:
        """Run a cliff's privileged rollouts and leave the group's record. Never raises: the group's normal rollouts
        stay valid whatever happens here."""
        record = GroupRecord(
            prompt_id=prompt_id(kwargs["raw_prompt"], str(kwargs.get("data_source", ""))),
            cliff=group.is_cliff(self.hdpo.success_reward),
            solved=group.is_solved(self.hdpo.success_reward),
            lost_rollouts=group.size - len(group.rewards),
        )
        try:
            if record.cliff:
                await self._run_privileged(group, record, sampling_params, trajectory, trace, kwargs)
        except Exception:
            record.errors += 1
            logger.exception(f"privileged rollouts of prompt {group.uid} failed; its normal rollouts are kept")
        record.settled_at, record.ended_at = group.settled_at, time.time()
        await tq.async_kv_put(key=rows.record_key(group.uid), partition_id="train", tag=record.as_tag())

    async def _run_privileged(
        self,
        group: RolloutGroup,
        record: GroupRecord,
        sampling_params: dict,
        trajectory: dict,
        trace: bool,
        kwargs: dict,
    ) -> None:
        plain = list(kwargs["raw_prompt"])
        try:
            messages = self.prompt_builder.build(plain, kwargs)
        except NoPrivilegedText as missing:
            record.no_solution += self.hdpo.privileged.n
            logger.warning(f"cliff {record.prompt_id} is skipped: its row has no text at {missing}")
            return
        # vLLM's server would otherwise derive max_tokens from the length of a plain prompt.
        params = {**sampling_params, "max_tokens": self.config.actor_rollout_ref.rollout.response_length}
        run = super()._run_agent_loop
        results = await asyncio.gather(
            *(
                run(
                    dict(params),
                    trajectory,
                    agent_name=PRIVILEGED_AGENT,
                    trace=trace,
                    **{
                        **kwargs,
                        "raw_prompt": messages,
                        "session_id": group.size + j,
                        "hdpo_privileged_rollout": PrivilegedRollout(group, record, plain),
                    },
                )
                for j in range(self.hdpo.privileged.n)
            ),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, PrivilegedPromptTooLong):
                record.too_long += 1
                logger.warning(f"cliff {record.prompt_id} is skipped: {result}")
            elif isinstance(result, BaseException):
                record.errors += 1
                logger.error(f"a privileged rollout of cliff {record.prompt_id} failed", exc_info=result)

    async def _keep_if_solved(self, output: AgentLoopOutput, privileged: PrivilegedRollout, kwargs: dict) -> None:
        """Score a privileged rollout as the student's answer to the plain prompt; keep it if R = 1."""
        group, record = privileged.group, privileged.record
        teacher_prompt_ids, output.prompt_ids = output.prompt_ids, group.student_prompt_ids
        kwargs = {**kwargs, "raw_prompt": privileged.plain_messages}
        await self._compute_score([output], kwargs=kwargs)
        record.rollouts += 1
        if not output.response_ids or not is_success(output.reward_score, self.hdpo.success_reward):
            return
        await tq.async_kv_batch_put(
            keys=[rows.row_key(group.uid, kwargs["session_id"])],
            fields=rows.privileged_fields(group.student_prompt_ids, teacher_prompt_ids, output.response_ids),
            tags=[rows.privileged_tag(group.student_prompt_ids, teacher_prompt_ids, output.response_ids)],
            partition_id="train",
        )
        record.kept += 1
        record.kept_tokens += len(output.response_ids)


class HDPOAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager over :class:`HDPOAgentLoopWorker`; ``rollout.agent.agent_loop_manager_class`` names it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(HDPOAgentLoopWorker)
