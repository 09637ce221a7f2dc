"""The rollout hook: re-issues a cliff with its privileged prompt as soon as the prompt's last rollout has settled.

verl's agent-loop worker runs one prompt's K rollouts side by side and publishes the prompt as ``finished`` when all
have settled. Here the rollout that settles last and leaves an all-failed group runs the privileged rollouts before it
returns: other prompts go on rolling out, and ``finished`` covers the privileged rows too, with nothing of verl's flow
copied.

In TransferQueue a prompt's group then holds, besides verl's rows ``{uid}_{session}_0`` of sessions 0 .. K-1:

- one row per kept privileged rollout, ``{uid}_{K + j}_0``, with the fields of :mod:`recipe.hdpo.training.mini_batch`;
- one tag without fields, ``{uid}_hdpo_0``, the :class:`~recipe.hdpo.algorithm.cliff.GroupRecord`.

With ``hdpo.privileged.use=replace`` (a control) privileged rollout j, if kept, is written over session j instead.

Under an asynchronous trainer a group never waits: a cliff goes into a partition of its own
(:data:`recipe.hdpo.transfer.CLIFFS`) as a group with a uid of its own, and its privileged rollouts follow there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
import uuid
from dataclasses import asdict
from typing import Any

import ray
import transfer_queue as tq
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ

from recipe.hdpo import transfer
from recipe.hdpo.algorithm import feedback
from recipe.hdpo.algorithm.cliff import GroupRecord, RolloutGroup, is_success
from recipe.hdpo.algorithm.feedback import (
    Attempt,
    FeedbackPromptBuilder,
    attempt_for,
    first_attempts,
    from_json,
    to_json,
)
from recipe.hdpo.algorithm.gate import FAILED as CHECK_FAILED
from recipe.hdpo.algorithm.gate import reason_to_drop
from recipe.hdpo.algorithm.ladder import rung_sizes
from recipe.hdpo.algorithm.privileged_prompt import NoPrivilegedText, PrivilegedPromptBuilder, prompt_id, text_at
from recipe.hdpo.algorithm.seeds import derived_seed
from recipe.hdpo.config.checks import read_hdpo
from recipe.hdpo.config.keys import is_async
from recipe.hdpo.rollout.chat_template import make_prompt_builders
from recipe.hdpo.rollout.leak_reader import LeakReader
from recipe.hdpo.rollout.outputs import UnscoredRollout, single_output
from recipe.hdpo.rollout.privileged_agent import MARK, PrivilegedPromptTooLong, PrivilegedRollout, privileged_agent
from recipe.hdpo.rollout.scoring import ScoringWorker
from recipe.hdpo.rollout.telling import EMPTY, FAILED, TRUNCATED, Telling

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))


class HDPOAgentLoopWorker(ScoringWorker):
    """verl's agent-loop worker with privileged rollouts for cliffs. There are none in validation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hdpo = read_hdpo(self.config)
        self.prompt_builders = make_prompt_builders(self.hdpo)
        self.leak_reader = LeakReader(self.hdpo, self.tokenizer, self.prompt_builders)
        # Texts go where verl's own go.
        self.telling = Telling(self.tokenizer) if self.config.trainer.get("rollout_data_dir", None) else None
        # Where privileged rollouts go: in rows of their own under an asynchronous trainer, else with their group.
        self.partition = transfer.CLIFFS if is_async(self.config) else transfer.TRAIN
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

    async def _run_seeded(self, sampling_params: dict, trajectory: dict, **kwargs: Any) -> None:
        """One rollout, with a sampling seed of its own where ``hdpo.rollout_seed`` asks for it."""
        if self.hdpo.rollout_seed is not None:
            problem = prompt_id(kwargs["raw_prompt"], str(kwargs.get("data_source", "")))
            seed = derived_seed(self.hdpo.rollout_seed, trajectory["step"], problem, kwargs["session_id"])
            sampling_params = {**sampling_params, "seed": seed}
        await super()._run_agent_loop(sampling_params, trajectory, **kwargs)

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

    def _shown_attempts(self, group: RolloutGroup) -> str:
        return to_json(first_attempts(group.attempts, self.hdpo.privileged.of_feedback))

    async def _finish_group(
        self, group: RolloutGroup, sampling_params: dict, trajectory: dict, trace: bool, kwargs: dict
    ) -> None:
        """Run a cliff's privileged rollouts and leave the group's record. Never raises: the group's normal rollouts
        stay valid whatever happens here."""
        group.prompt_was_cut = self._prompt_was_cut(group.student_prompt_ids, group.agent_name, kwargs)
        problem = prompt_id(kwargs["raw_prompt"], str(kwargs.get("data_source", "")))
        record = group.record(problem, self.hdpo.success_reward)
        try:
            if record.cliff and self.partition == transfer.CLIFFS:
                await self._let_follow(group, sampling_params, trajectory, trace, kwargs)
            elif record.cliff and self.hdpo.privileged.schedule == "same_step":
                await self._run_privileged(group, record, sampling_params, trajectory, trace, kwargs)
            elif record.cliff:
                record.plain_prompt_ids, record.attempts = group.student_prompt_ids, self._shown_attempts(group)
        except Exception:
            record.errors += 1
            logger.exception(f"privileged rollouts of prompt {group.uid} failed; its normal rollouts are kept")
        record.settled_at, record.ended_at = group.settled_at, time.time()
        if not group.rewards and self.config.trainer.v1.sampler.sync_refill_failed_groups:
            # verl draws another prompt for an empty group; a record would make the group look non-empty.
            return
        await tq.async_kv_put(key=transfer.record_key(group.uid), partition_id="train", tag=transfer.record_tag(record))

    async def _let_follow(
        self, group: RolloutGroup, sampling_params: dict, trajectory: dict, trace: bool, kwargs: dict
    ) -> None:
        """Start a cliff's privileged rollouts and go on. The cliff is on record before its own group is finished: a
        run that is resumed from a checkpoint in between re-issues it."""
        if self.hdpo.privileged.n == 0:
            return
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
        own = (
            "agent_name",
            "__rollout_n__",
            "__do_sample__",
            transfer.PLAIN_PROMPT_IDS,
            transfer.ATTEMPTS,
            transfer.CLIFF_UID,
        )
        kwargs = {k: v for k, v in prompt.items() if k not in own}
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
            await self._run_privileged(group, record, sampling_params, trajectory, trace, kwargs)
        except Exception:
            record.errors += 1
            logger.exception(f"privileged rollouts of the re-issued cliff {problem} failed")
        record.settled_at = record.ended_at = time.time()
        tag = transfer.record_tag(record)
        await tq.async_kv_put(key=transfer.record_key(group.uid), partition_id=self.partition, tag=tag)
        await tq.async_kv_put(key=group.uid, partition_id=self.partition, tag={"status": "finished"})

    async def _run_privileged(
        self,
        group: RolloutGroup,
        record: GroupRecord,
        sampling_params: dict,
        trajectory: dict,
        trace: bool,
        kwargs: dict,
    ) -> None:
        """The rungs of the ladder, one after the other, until a rollout was solved and kept; mostly there is one."""
        options, session = self.hdpo.privileged, group.size
        params = dict(sampling_params)
        if options.use == "distill":
            params["logprobs"] = False  # nobody reads them
        for source, size in zip(options.sources, rung_sizes(options.n, len(options.sources)), strict=True):
            rollout = PrivilegedRollout(group, record, list(kwargs["raw_prompt"]), source)
            sessions = range(session, session + size)
            if await self._run_rung(rollout, sessions, params, trajectory, trace, kwargs):
                return
            session += size

    async def _run_rung(
        self, rollout: PrivilegedRollout, sessions: range, params: dict, trajectory: dict, trace: bool, kwargs: dict
    ) -> bool:
        """The privileged rollouts that show one source; True where one was solved and kept."""
        record = rollout.record
        try:
            prompts = self._privileged_messages(rollout, kwargs, len(sessions))
        except NoPrivilegedText as missing:
            if rollout.source == feedback.SOURCE:
                record.no_feedback += len(sessions)
            else:
                record.no_solution += len(sessions)
            logger.warning(f"cliff {record.prompt_id} is skipped ({rollout.source}): there is no text at {missing}")
            return False
        if self.telling is not None:
            builder = self.prompt_builders.get(rollout.source)
            shown = builder.shown(kwargs) if isinstance(builder, PrivilegedPromptBuilder) else ""
            # Of a ladder the last rung that was tried.
            record.privileged = self.telling.shown(rollout.source, shown)
        marks = {session: dataclasses.replace(rollout) for session in sessions}
        agent = privileged_agent(rollout.group.agent_name)
        results = await asyncio.gather(
            *(
                self._run_seeded(
                    dict(params),
                    trajectory,
                    agent_name=agent,
                    trace=trace,
                    **{**kwargs, "raw_prompt": messages, "session_id": session, MARK: mark},
                )
                for (session, mark), messages in zip(marks.items(), prompts, strict=True)
            ),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, PrivilegedPromptTooLong):
                record.too_long += 1
                logger.warning(f"cliff {record.prompt_id} is skipped ({rollout.source}): {result}")
            elif isinstance(result, BaseException):
                record.errors += 1
                logger.error(f"a privileged rollout of cliff {record.prompt_id} failed", exc_info=result)
        return any(mark.solved_and_kept for mark in marks.values())

    def _privileged_messages(self, rollout: PrivilegedRollout, kwargs: dict, count: int) -> list[list[dict]]:
        """The prompts of a rung's rollouts.

        Raises:
            NoPrivilegedText: there is nothing to show.
        """
        plain, builder = rollout.plain_messages, self.prompt_builders.get(rollout.source)
        if not isinstance(builder, FeedbackPromptBuilder):
            return [plain if builder is None else builder.build(plain, kwargs)] * count
        attempts = first_attempts(rollout.group.attempts, count)
        if not attempts:
            raise NoPrivilegedText(f"{self.hdpo.privileged.feedback_key} of what the reward returned for its rollouts")
        return [builder.build(plain, attempt_for(attempts, j)) for j in range(count)]

    async def _keep(self, output: AgentLoopOutput, privileged: PrivilegedRollout, kwargs: dict) -> None:
        """Score a privileged rollout as the student's answer to the plain prompt; keep it if it is to be kept."""
        group, record, options = privileged.group, privileged.record, self.hdpo.privileged
        cut_off = await self._was_cut_off(output, group.agent_name)
        teacher_prompt_ids, output.prompt_ids = output.prompt_ids, group.student_prompt_ids
        await self._score([output], False, {**kwargs, "raw_prompt": privileged.plain_messages})
        record.rollouts += 1
        record.privileged_truncated += cut_off
        solved = is_success(output.reward_score, self.hdpo.success_reward)
        record.solved_privileged += solved
        record.count(privileged.source, rollouts=1, solved=solved)
        reason, signs = self._why_not_kept(output, solved, cut_off), None
        if not reason:
            signs = await self.leak_reader.signs(output, kwargs, privileged.source)
            record.step_check_errors += signs.step_check == CHECK_FAILED
            if dropped := reason_to_drop(signs, options.gate):
                record.dropped[dropped] = record.dropped.get(dropped, 0) + 1
                reason = f"gate: {dropped}"
        if self.telling is not None:
            key = transfer.row_key(group.uid, kwargs["session_id"])
            self.telling.attempt(record, key, teacher_prompt_ids, output, solved=solved, cut_off=cut_off, reason=reason)
        record.skipped_truncated += reason == TRUNCATED
        if signs is None or reason:
            return
        if options.use == "replace":
            output.prompt_ids = teacher_prompt_ids
            # Privileged rollout j, whose session is K + j, is written over rollout j. All of them failed.
            replaced = {**kwargs, "session_id": kwargs["session_id"] - group.size}
            await super()._agent_loop_postprocess(output, validate=False, **replaced)
        else:
            await self._put_privileged_row(privileged, kwargs["session_id"], teacher_prompt_ids, output)
        record.kept_signs[transfer.row_key(group.uid, kwargs["session_id"])] = asdict(signs)
        privileged.solved_and_kept = solved
        record.kept += 1
        record.count(privileged.source, kept=1)
        record.kept_truncated += cut_off
        record.kept_tokens += sum(output.response_mask)

    def _why_not_kept(self, output: AgentLoopOutput, solved: bool, cut_off: bool) -> str:
        """The reason for which a scored privileged rollout is not used; empty for one that is."""
        options = self.hdpo.privileged
        if not any(output.response_mask):
            return EMPTY
        if not (solved or options.keep == "all"):
            return FAILED
        return TRUNCATED if cut_off and not options.keep_truncated else ""

    async def _put_privileged_row(
        self, privileged: PrivilegedRollout, session_id: int, teacher_prompt_ids: list[int], output: AgentLoopOutput
    ) -> None:
        group, begun_with = privileged.group, output.extra_fields.get("min_global_steps")
        row = (group.student_prompt_ids, teacher_prompt_ids, output.response_ids)
        await tq.async_kv_batch_put(
            keys=[transfer.row_key(group.uid, session_id)],
            fields=transfer.privileged_fields(*row, output.response_mask),
            tags=[transfer.privileged_tag(*row, output.response_mask, begun_with, privileged.source)],
            partition_id=self.partition,
        )


class HDPOAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager over :class:`HDPOAgentLoopWorker`; ``rollout.agent.agent_loop_manager_class`` names it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(HDPOAgentLoopWorker)
