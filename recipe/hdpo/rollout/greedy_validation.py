"""Greedy accuracy in validation, beside the sampled pass@k: one more rollout of every validation prompt.

The greedy rollout's score travels to the trainer in the reward's extra information of the prompt's samples; verl's own
validation metrics never see it as a sample.
"""

from __future__ import annotations

import logging
from typing import Any

from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ, apply_greedy_sampling_params

from recipe.hdpo.config import HDPOConfig

logger = logging.getLogger(__name__)

# In the reward's extra information of every sample of a prompt: the score of its greedy rollout.
GREEDY_SCORE = "hdpo_greedy_score"
# A session that no sample has.
_GREEDY_SESSION = -1

# ray.remote wraps the class; the plain class underneath is what can be extended.
AgentLoopWorker: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class GreedyValidationWorker(AgentLoopWorker):
    """verl's agent-loop worker with a greedy rollout of every validation prompt, where the config asks for it.

    Attributes:
        hdpo: the recipe's knobs.
        greedy_scores: score by uid, of the validation prompts whose samples are running.
    """

    hdpo: HDPOConfig
    greedy_scores: dict[str, float]

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        if not (trajectory["validate"] and self.hdpo.validate_greedy):
            return await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        uid, params = prompt["uid"], dict(sampling_params)
        apply_greedy_sampling_params(params)
        fields = {key: value for key, value in prompt.items() if key not in ("__rollout_n__", "__do_sample__")}
        try:
            await super()._run_agent_loop(params, trajectory, trace=trace, session_id=_GREEDY_SESSION, **fields)
        except Exception:
            logger.exception(f"the greedy rollout of validation prompt {uid} failed; its samples are kept")
        try:
            await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        finally:
            self.greedy_scores.pop(uid, None)

    async def _agent_loop_postprocess(self, output: Any, validate: bool, **kwargs: Any) -> None:
        if not (validate and self.hdpo.validate_greedy):
            return await super()._agent_loop_postprocess(output, validate, **kwargs)
        outputs = output if isinstance(output, list) else [output]
        await self._compute_score(outputs, kwargs=kwargs)
        if kwargs["session_id"] == _GREEDY_SESSION:
            self.greedy_scores[kwargs["uid"]] = float(outputs[-1].reward_score)
            return
        extra = outputs[-1].extra_fields.setdefault("reward_extra_info", {})
        extra[GREEDY_SCORE] = self.greedy_scores.get(kwargs["uid"])
        await super()._agent_loop_postprocess(output, validate, **kwargs)
