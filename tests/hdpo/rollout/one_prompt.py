"""One prompt through the rollout hook, on verl's own agent loop, tokenizer and chat template.

The language model, the reward worker and TransferQueue are stand-ins that the test controls, so that errors and
overlong prompts can be provoked; the end-to-end test runs the same code with the real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord
from tests.hdpo.composed_config import composed_from

RIGHT, WRONG = "right", "wrong"
# As a score: the reward function never returns.
HANGS = object()


class Store:
    """TransferQueue's calls, in memory and in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict]] = []
        self.fields: dict[str, Any] = {}
        self.partitions: dict[str, str] = {}

    def init(self) -> None:
        """Called by verl's worker."""

    async def async_kv_put(self, key: str, partition_id: str, tag: dict) -> None:
        self.events.append((key, tag))
        self.partitions[key] = partition_id

    async def async_kv_batch_put(self, keys: list[str], fields: Any, tags: list[dict], partition_id: str) -> None:
        self.events += list(zip(keys, tags, strict=True))
        for i, key in enumerate(keys):
            self.fields[key] = fields[i]
            self.partitions[key] = partition_id

    def record(self) -> GroupRecord:
        [record] = [r for _, tag in self.events if (r := transfer.record_of(tag))]
        return record

    def kept(self) -> list[str]:
        return sorted(key for key, tag in self.events if tag.get(transfer.PRIVILEGED_TAG))


class Model:
    """Answers what the test says; remembers the prompts."""

    def __init__(self, tokenizer: Any, answer: Any) -> None:
        self.tokenizer, self.answer = tokenizer, answer
        self.prompts: list[str] = []
        self.max_tokens: list[Any] = []
        self.seeds: list[Any] = []
        self.temperatures: list[float] = []

    async def generate(self, prompt_ids: list[int], sampling_params: dict, **_: Any) -> Any:
        prompt = self.tokenizer.decode(prompt_ids)
        self.prompts.append(prompt)
        self.max_tokens.append(sampling_params.get("max_tokens"))
        self.seeds.append(sampling_params.get("seed"))
        self.temperatures.append(sampling_params["temperature"])
        await asyncio.sleep(0)
        text = self.answer(prompt)
        ids = self.tokenizer(text).input_ids
        return SimpleNamespace(
            token_ids=ids, log_probs=[0.0] * len(ids), routed_experts=None, num_preempted=0, extra_fields={}
        )


def run_prompt(
    chat_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    *overrides: str,
    solution: str | None = "SOLUTION",
    messages: list[dict] | None = None,
    step: int = 1,
    scores: Mapping[str, Any] = MappingProxyType({RIGHT: 1.0}),
    validate: bool = False,
    reissued: bool = False,
    plain_ids: bool = True,
    agent_name: str = "single_turn_agent",
    row: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Store, Model, list[dict]]:
    """One prompt through ``_run_prompt``; returns the store, the model and what the reward function was given.

    Args:
        answer: the model's response to a prompt, both text.
        solution: the data row's; None for a row without one.
        messages: the prompt; None for one user message "PROBLEM".
        step: the training step.
        scores: what the reward function returns by response, 0 for any other.
        reissued: whether the prompt is a cliff of the step before.
        plain_ids: whether it brings the token ids that its rollouts read.
        row: further columns of the data row.
    """
    from transformers import AutoTokenizer
    from verl.trainer.ppo.v1 import agent_loop_tq

    from recipe.hdpo.rollout import agent_loop, privileged_rollouts, reissue

    config = composed_from(
        f"actor_rollout_ref.model.path={chat_model}",
        "actor_rollout_ref.rollout.n=3",
        "data.max_prompt_length=64",
        "data.max_response_length=32",
        "actor_rollout_ref.rollout.max_model_len=512",
        "hdpo.privileged.n=2",
        *overrides,
    )
    OmegaConf.resolve(config)
    store, tokenizer = Store(), AutoTokenizer.from_pretrained(chat_model)
    for module in (agent_loop_tq, agent_loop, privileged_rollouts, reissue):
        monkeypatch.setattr(module, "tq", store)
    model = Model(tokenizer, answer)
    worker = agent_loop.HDPOAgentLoopWorker(config, llm_client=model)
    scored: list[dict] = []

    async def compute_score(self: Any, outputs: list, kwargs: dict) -> None:
        if outputs[-1].reward_score is not None:  # as verl's, which the contract tests check
            return
        text = tokenizer.decode(outputs[-1].response_ids)
        scored.append({"prompt": tokenizer.decode(outputs[-1].prompt_ids), **kwargs})
        if scores.get(text) is HANGS:
            await asyncio.Event().wait()
        result = scores.get(text, 0.0)
        extra_info = result if isinstance(result, dict) else {}
        outputs[-1].reward_score = extra_info.get("score", result)
        outputs[-1].extra_fields["reward_extra_info"] = dict(extra_info)  # as verl's, too

    monkeypatch.setattr("recipe.hdpo.rollout.greedy_validation.AgentLoopWorker._compute_score", compute_score)
    prompt = {
        "uid": "uid-1",
        "raw_prompt": messages or [{"role": "user", "content": "PROBLEM"}],
        "agent_name": agent_name,
        "data_source": "d",
        "global_steps": step,
        "reward_model": {"ground_truth": "ANSWER"},
        "extra_info": {"solution": solution, "another": "ANOTHER"},
        **row,
    }
    if reissued:
        ids = worker.token_builder.build_initial_tokens(
            prompt["raw_prompt"], tools=worker.tool_agents.schemas(agent_name, prompt)
        )
        prompt |= {transfer.REISSUED: True} | ({transfer.PLAIN_PROMPT_IDS: ids} if plain_ids else {})
    trajectory = {"step": step, "sample_index": 0, "rollout_n": 0, "validate": validate}

    async def run() -> None:
        # verl applies chat templates in threads: with one, the rollouts reach the model in their order.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=1))
        await worker._run_prompt(prompt, {"temperature": 1.0}, trajectory)
        await asyncio.gather(*worker.background_tasks)

    asyncio.run(run())
    assert worker.groups == {}
    return store, model, scored


def solves_when_shown(prompt: str) -> str:
    """Right if the prompt holds the solution."""
    return RIGHT if "SOLUTION" in prompt else WRONG
