"""A cliff's privileged rollouts: asked for, scored as answers to the plain prompt, and kept or not.

In TransferQueue each kept one is a row ``{uid}_{K + j}_0`` with the fields of :mod:`recipe.hdpo.training.mini_batch`.
With ``hdpo.privileged.use=replace`` (a control) privileged rollout j, if kept, is written over session j instead.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from dataclasses import asdict
from typing import Any

import transfer_queue as tq
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from recipe.hdpo import transfer
from recipe.hdpo.algorithm import feedback
from recipe.hdpo.algorithm.cliff import GroupRecord, RolloutGroup, is_success
from recipe.hdpo.algorithm.feedback import FeedbackPromptBuilder, attempt_for, first_attempts
from recipe.hdpo.algorithm.gate import FAILED as CHECK_FAILED
from recipe.hdpo.algorithm.gate import reason_to_drop
from recipe.hdpo.algorithm.ladder import rung_sizes
from recipe.hdpo.algorithm.privileged_prompt import NoPrivilegedText, PrivilegedPromptBuilder, prompt_id
from recipe.hdpo.algorithm.seeds import derived_seed
from recipe.hdpo.config.checks import read_hdpo
from recipe.hdpo.config.keys import is_async
from recipe.hdpo.rollout.chat_template import make_prompt_builders
from recipe.hdpo.rollout.leak_reader import LeakReader
from recipe.hdpo.rollout.privileged_agent import MARK, PrivilegedPromptTooLong, PrivilegedRollout, privileged_agent
from recipe.hdpo.rollout.scoring import ScoringWorker
from recipe.hdpo.rollout.telling import EMPTY, FAILED, TRUNCATED, Telling

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))


class PrivilegedWorker(ScoringWorker):
    """verl's agent-loop worker with privileged rollouts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hdpo = read_hdpo(self.config)
        self.prompt_builders = make_prompt_builders(self.hdpo)
        self.leak_reader = LeakReader(self.hdpo, self.tokenizer, self.prompt_builders)
        # Texts go where verl's own go.
        self.telling = Telling(self.tokenizer) if self.config.trainer.get("rollout_data_dir", None) else None
        # Where privileged rollouts go: in rows of their own under an asynchronous trainer, else with their group.
        self.partition = transfer.CLIFFS if is_async(self.config) else transfer.TRAIN

    async def _run_seeded(self, sampling_params: dict, trajectory: dict, **kwargs: Any) -> None:
        """One rollout, with a sampling seed of its own where ``hdpo.rollout_seed`` asks for it."""
        if self.hdpo.rollout_seed is not None:
            problem = prompt_id(kwargs["raw_prompt"], str(kwargs.get("data_source", "")))
            seed = derived_seed(self.hdpo.rollout_seed, trajectory["step"], problem, kwargs["session_id"])
            sampling_params = {**sampling_params, "seed": seed}
        await super()._run_agent_loop(sampling_params, trajectory, **kwargs)

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
            record.privileged = self.telling.shown(rollout.source, shown, rollout.plain_messages)
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
                record.lose_privileged(result)
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
