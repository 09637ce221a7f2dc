"""Rollouts of a training whose steps are of three kinds (benchmarks/overhead_trainer.py)."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import ray

from benchmarks.overhead_trainer import kind
from recipe.hdpo.rollout.agent_loop import HDPOAgentLoopManager, HDPOAgentLoopWorker

# Responses to sums of so many terms, which are to fail, end at the length limit where the variable is set.
FAILURES_RUN_TO_LIMIT = "HDPO_OVERHEAD_FAILURES_RUN_TO_LIMIT"
FAIL_FROM = 5


class OverheadWorker(HDPOAgentLoopWorker):
    """Re-issues a step's cliffs within the step where the step is of that kind."""

    async def _finish_group(self, group: Any, sampling_params: dict, trajectory: dict, *rest: Any) -> None:
        schedule = "same_step" if kind(trajectory["step"]) == "same_step" else "next_step"
        self.hdpo = replace(self.hdpo, privileged=replace(self.hdpo.privileged, schedule=schedule))
        await super()._finish_group(group, sampling_params, trajectory, *rest)

    async def _run_seeded(self, sampling_params: dict, trajectory: dict, **kwargs: Any) -> None:
        is_plain = "hdpo_privileged_rollout" not in kwargs
        if os.environ.get(FAILURES_RUN_TO_LIMIT) and is_plain and int(kwargs["extra_info"]["difficulty"]) >= FAIL_FROM:
            # No end of text before that.
            limit = self.config.actor_rollout_ref.rollout.response_length
            sampling_params = {**sampling_params, "min_tokens": limit}
        await super()._run_seeded(sampling_params, trajectory, **kwargs)


class OverheadManager(HDPOAgentLoopManager):
    """HDPO's, over :class:`OverheadWorker`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(OverheadWorker)
