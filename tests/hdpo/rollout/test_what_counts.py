"""What makes a cliff and what is kept: rewards that are none, prompts that were cut, responses without an end."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

from recipe.hdpo.algorithm.cliff import UNSCORED
from recipe.hdpo.rollout.outputs import UnscoredRollout, end_token_ids, is_cut_off, usable_reward
from recipe.hdpo.tracking.cliff_history import CliffHistory
from recipe.hdpo.tracking.step_metrics import step_metrics
from tests.hdpo.rollout.one_prompt import RIGHT, WRONG, run_prompt, solves_when_shown

NO_REWARDS = [None, math.nan, math.inf, -math.inf, 1e39, 10**400, "right", [1.0, 0.0], {}]
UNGRADED = {"score": 0.0, "acc": 0.0, UNSCORED: "over the time limit of 5 s"}
# What verl's manager `rate_limited` makes of a reward function that raised, and of one that never returned.
FAILED = {"score": 0.0, "info": {"error": "judge is down", "acc": 0.0}}
FAILED_SILENTLY = {"score": 0.0, "info": {"error": "", "acc": 0.0}}
TIMED_OUT = {"score": 0.0, "info": {"timeout": True, "acc": 0.0}}
GRADED = {"score": 1.0, "acc": 1.0, UNSCORED: ""}
# 32 tokens each, which is all that a response may have: the tokenizer knows bytes, and the mark of a turn's end.
CUT_OFF, JUST_ENDED = "r" * 32, "r" * 31 + "<|im_end|>"


@pytest.mark.parametrize("score", NO_REWARDS, ids=lambda score: repr(score)[:9])
def test_what_is_no_finite_number_is_no_reward(score: Any) -> None:
    with pytest.raises(UnscoredRollout, match="counts as lost, not as failed"):
        usable_reward(score)


@pytest.mark.parametrize("score", [None, math.nan, "right", UNGRADED], ids=lambda score: repr(score)[:9])
def test_a_group_whose_rewards_are_none_is_lost_and_no_cliff(chat_model, monkeypatch, score: Any) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, lambda _: RIGHT, scores={RIGHT: score})
    record = store.record()
    assert not record.cliff and not record.solved
    assert (record.size, record.lost_rollouts, record.unscored) == (3, 3, 3)
    assert len(model.prompts) == 3 and store.fields == {}
    assert store.events[-1] == ("uid-1", {"status": "failure"})
    assert record.first_error.startswith("UnscoredRollout: the reward") and record.first_error_at > 0
    assert ("could not grade the response: over the time limit of 5 s." in record.first_error) == (score == UNGRADED)
    history = CliffHistory()
    metrics = step_metrics([record], history)
    assert (metrics["hdpo/lost_rollouts"], metrics["hdpo/unscored_rollouts"], metrics["hdpo/cliffs"]) == (3, 3, 0)
    assert history == CliffHistory()


@pytest.mark.parametrize("score", [None, math.inf, UNGRADED], ids=lambda score: repr(score)[:9])
def test_one_rollout_without_a_reward_writes_no_row_and_leaves_the_others(chat_model, monkeypatch, score: Any) -> None:
    answers = iter([WRONG, "odd", RIGHT])
    store, model, _ = run_prompt(chat_model, monkeypatch, lambda _: next(answers), scores={RIGHT: 1.0, "odd": score})
    record = store.record()
    # Which rollout gets which answer is the order in which they ask.
    assert store.fields.keys() < {f"uid-1_{n}_0" for n in range(3)}
    assert sorted(float(row["rm_scores"].sum()) for row in store.fields.values()) == [0.0, 1.0]
    assert (record.cliff, record.solved, record.lost_rollouts, record.unscored) == (False, True, 1, 1)
    answers = iter([WRONG, "odd", WRONG])
    store, model, _ = run_prompt(chat_model, monkeypatch, lambda _: next(answers), scores={"odd": score})
    assert len(model.prompts) == 3 and not store.record().cliff and not store.record().solved


@pytest.mark.parametrize(
    ("made_up", "said"),
    [
        (FAILED, "the reward function failed: judge is down."),
        (FAILED_SILENTLY, "the reward function failed: an error without a text."),
        (TIMED_OUT, "the reward function has not returned within reward.timeout."),
    ],
)
def test_a_score_that_the_rate_limited_manager_made_up_is_no_reward(made_up: dict, said: str) -> None:
    with pytest.raises(UnscoredRollout, match=f"{said} The rollout counts as lost, not as failed"):
        usable_reward(made_up["score"], made_up["info"])


@pytest.mark.parametrize(
    "info", [{"acc": 0.0}, {"score": 0.0, "error": "a wrong sign"}, {"score": 0.0, "timeout": True}, {"timeout": 5.0}]
)
def test_what_a_reward_function_says_itself_of_errors_and_times_is_no_outage(info: dict) -> None:
    assert usable_reward(0.0, info) == 0.0


def test_the_rate_limited_manager_makes_up_scores_as_above() -> None:
    import asyncio

    from omegaconf import OmegaConf
    from tensordict import TensorDict
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager.limited import RateLimitedRewardManager

    async def judge(solution_str: str, **_: Any) -> float:
        if solution_str == "down":
            raise ConnectionError("judge is down")
        await asyncio.sleep(60)
        return 1.0

    async def result(response: str) -> dict:
        class Manager(RateLimitedRewardManager):
            """With limits of its own: verl keeps them in the class."""

        config = OmegaConf.create({"reward": {"max_concurrent": 4, "timeout": 0.1}})
        tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: response)
        batch = {"responses": torch.ones(1, 3, dtype=torch.long), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
        row = {"data_source": "d", "reward_model": {"ground_truth": "1"}, "extra_info": {}}
        columns = {name: np.array([value], dtype=object) for name, value in row.items()}
        data = DataProto(batch=TensorDict(batch, batch_size=1), non_tensor_batch=columns)
        return await Manager(config, tokenizer, judge).run_single(data)

    for response, expected in (("down", FAILED), ("slow", TIMED_OUT)):
        found = asyncio.run(result(response))
        assert found == {"reward_score": expected["score"], "reward_extra_info": expected["info"]}


def test_a_reward_model_that_returns_a_score_alone_scores_the_rollout(chat_model, monkeypatch) -> None:
    """verl's agent-loop worker and its call of a discriminative reward model, without the model's server."""
    import asyncio

    from omegaconf import OmegaConf
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    from recipe.hdpo.rollout.agent_loop import HDPOAgentLoopWorker
    from tests.hdpo.composed_config import composed_from

    reward: dict[str, Any] = {"custom_reward_function": {"path": None}}
    reward["reward_model"] = {"enable": True, "model_path": "m", "rollout": {"name": "vllm"}}
    worker = SimpleNamespace(config=OmegaConf.create({"reward": reward}))

    async def preprocessed(data: Any) -> str:
        return "text"

    async def posted(payload: dict, endpoint: str) -> dict:
        return {"data": [{"probs": [0.1, 0.75]}]}

    worker._preprocess_reward_inputs, worker._post_request = preprocessed, posted
    worker.compute_score_disrm = lambda data: RewardLoopWorker.compute_score_disrm(worker, data)
    remote = SimpleNamespace(remote=lambda data: RewardLoopWorker.compute_score(worker, data))
    monkeypatch.setattr("verl.trainer.ppo.v1.agent_loop_tq.tq.init", lambda: None)
    config = composed_from(f"actor_rollout_ref.model.path={chat_model}")
    OmegaConf.resolve(config)
    scoring = HDPOAgentLoopWorker(config, llm_client=None)
    scoring.reward_loop_worker_handles = [SimpleNamespace(compute_score=remote)]
    output = _output([5])
    asyncio.run(scoring._score([output], False, {"uid": "u", "raw_prompt": [{"role": "user", "content": "P"}]}))
    assert output.reward_score == 0.75 and output.extra_fields["reward_extra_info"] == {}


def test_a_validation_sample_whose_reward_function_raises_counts_as_wrong_and_says_why(
    chat_model, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(dict):
        def get(self, *_: Any) -> Any:
            raise KeyError("a typo")

    overrides = ["actor_rollout_ref.rollout.val_kwargs.n=2", "hdpo.validate_greedy=true"]
    for override in ([], overrides[1:]):
        options: dict[str, Any] = {"scores": Broken(), "validate": True}
        store, *_ = run_prompt(chat_model, monkeypatch, lambda _: RIGHT, overrides[0], *override, **options)
        assert store.events[-1] == ("uid-1", {"status": "finished"}) and len(store.fields) == 2
        for row in store.fields.values():
            assert float(row["rm_scores"].sum()) == 0.0
            assert row["extra_fields"]["reward_extra_info"][UNSCORED] == "KeyError: 'a typo'"
    assert "counts as wrong: KeyError: 'a typo'" in caplog.text and "Traceback" in caplog.text
    # In training it is lost.
    lost = run_prompt(chat_model, monkeypatch, lambda _: RIGHT, scores=Broken())[0].record()
    assert (lost.lost_rollouts, lost.cliff, lost.first_error) == (3, False, "KeyError: 'a typo'")


def test_a_privileged_rollout_without_a_reward_is_counted_and_never_kept(chat_model, monkeypatch) -> None:
    for overrides, score in (([], math.nan), (["hdpo.privileged.keep=all"], math.nan), ([], UNGRADED | {"score": 1.0})):
        scores = {RIGHT: score}
        store, _, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, *overrides, scores=scores)
        record = store.record()
        assert record.cliff and (record.errors, record.rollouts, record.kept) == (2, 0, 0) and store.kept() == []


def test_a_validation_sample_without_a_reward_counts_as_wrong_and_says_why(
    chat_model, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    override = "actor_rollout_ref.rollout.val_kwargs.n=2"
    for unscored, said in ((None, "returned None"), (UNGRADED, "over the time limit")):
        options: dict[str, Any] = {"scores": {RIGHT: unscored, WRONG: GRADED}, "validate": True}
        answers = iter([RIGHT, WRONG])
        store, *_ = run_prompt(chat_model, monkeypatch, lambda _, left=answers: next(left), override, **options)
        rows = {key: row["extra_fields"]["reward_extra_info"] for key, row in store.fields.items()}
        assert {key: float(row["rm_scores"].sum()) for key, row in store.fields.items()} == {
            "uid-1_0_0": 0.0,
            "uid-1_1_0": 1.0,
        }
        assert said in rows["uid-1_0_0"][UNSCORED] and rows["uid-1_1_0"] == GRADED
        assert "a rollout of validation prompt uid-1 counts as wrong" in caplog.text and said in caplog.text


@pytest.mark.parametrize("score", [0, True, 0.5, -1.0, np.float32(0.25), torch.tensor(2.0)], ids=repr)
def test_every_finite_number_is_a_reward(score: Any) -> None:
    assert usable_reward(score) == float(score) and type(usable_reward(score)) is float


def test_a_reward_function_that_returns_nothing_is_told_what_to_do() -> None:
    with pytest.raises(UnscoredRollout, match=r"returned None.*without `return`.*let it return a number"):
        usable_reward(None)


def test_a_prompt_above_the_limit_is_no_cliff_and_one_at_the_limit_is(
    chat_model, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    messages = [{"role": "user", "content": "There are 12 pens. " * 6 + "How many?"}]
    _, model, _ = run_prompt(
        chat_model, monkeypatch, solves_when_shown, "data.max_prompt_length=200", messages=messages
    )
    length = len(model.tokenizer(model.prompts[0], add_special_tokens=False).input_ids)
    for limit, cliff in ((length, True), (length - 1, False)):
        caplog.clear()
        override = f"data.max_prompt_length={limit}"
        store, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, override, messages=messages)
        record = store.record()
        assert (record.cliff, record.overlong, len(store.kept())) == (cliff, not cliff, 2 if cliff else 0)
        assert len(model.prompts) == (5 if cliff else 3)
        assert step_metrics([record], CliffHistory())["hdpo/overlong_prompts"] == (0 if cliff else 1)
        named = f"has {length} tokens, more than data.max_prompt_length={limit}"
        assert (named in caplog.text) != cliff and ("filter_overlong_prompts=true" in caplog.text) != cliff


def test_a_part_of_a_prompt_that_is_solved_says_nothing_of_the_prompt(chat_model, monkeypatch) -> None:
    messages = [{"role": "user", "content": "long " * 30}]
    record = run_prompt(chat_model, monkeypatch, lambda _: RIGHT, messages=messages)[0].record()
    assert record.overlong and not record.solved and not record.cliff
    assert record.lost_rollouts == 0  # GRPO trains on them, as in plain verl


def _shown(text: str) -> Any:
    return lambda prompt: text if "SOLUTION" in prompt else WRONG


@pytest.mark.parametrize(("response", "cut_off"), [(CUT_OFF, True), (CUT_OFF + "rr", True), (JUST_ENDED, False)])
def test_a_response_of_full_length_without_an_end_is_not_kept(
    chat_model, monkeypatch, response: str, cut_off: bool
) -> None:
    scores = {CUT_OFF: 1.0, JUST_ENDED: 1.0}
    store, *_ = run_prompt(chat_model, monkeypatch, _shown(response), scores=scores)
    record = store.record()
    dropped = 2 if cut_off else 0
    assert (record.rollouts, record.solved_privileged, record.kept) == (2, 2, 2 - dropped)
    assert (record.privileged_truncated, record.skipped_truncated, record.kept_truncated) == (dropped, dropped, 0)
    assert len(store.kept()) == 2 - dropped and record.truncated == 0
    metrics = step_metrics([record], CliffHistory())
    assert metrics["hdpo/skipped_truncated"] == dropped and metrics["hdpo/kept_truncated"] == 0
    assert metrics["hdpo/privileged_truncated_rate"] == dropped / 2 and metrics["hdpo/truncated_rate"] == 0.0


def test_keep_truncated_keeps_and_counts_them(chat_model, monkeypatch) -> None:
    keep = "hdpo.privileged.keep_truncated=true"
    store, *_ = run_prompt(chat_model, monkeypatch, _shown(CUT_OFF), keep, scores={CUT_OFF: 1.0})
    record = store.record()
    assert (record.kept, record.kept_truncated, record.skipped_truncated, len(store.kept())) == (2, 2, 0, 2)
    assert step_metrics([record], CliffHistory())["hdpo/kept_truncated"] == 2


@pytest.mark.parametrize("control", ["hdpo.privileged.use=replace", "hdpo.privileged.keep=all"])
def test_controls_leave_cut_off_responses_out_too(chat_model, monkeypatch, control: str) -> None:
    store, *_ = run_prompt(chat_model, monkeypatch, _shown(CUT_OFF), control, scores={CUT_OFF: 1.0})
    assert (store.record().kept, store.record().skipped_truncated) == (0, 2)


def test_cut_off_normal_rollouts_are_counted_beside_them(chat_model, monkeypatch) -> None:
    answers = iter([CUT_OFF, WRONG, JUST_ENDED, RIGHT, RIGHT])
    record = run_prompt(chat_model, monkeypatch, lambda _: next(answers))[0].record()
    assert record.cliff and record.truncated == 1 and record.privileged_truncated == 0
    assert step_metrics([record], CliffHistory())["hdpo/truncated_rate"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("engine", "unused"), [("vllm", 0), ("sglang", 1)])
def test_a_context_that_ends_before_the_response_does_cuts_it_off(chat_model, monkeypatch, engine, unused) -> None:
    _, model, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG)
    length = len(model.tokenizer(model.prompts[0], add_special_tokens=False).input_ids)
    for room, cut_off in ((len(WRONG), 3), (len(WRONG) + 1, 0)):
        context = f"actor_rollout_ref.rollout.max_model_len={length + room + unused}"
        name = f"actor_rollout_ref.rollout.name={engine}"
        record = run_prompt(chat_model, monkeypatch, lambda _: WRONG, context, name)[0].record()
        assert record.truncated == cut_off


def _output(ids: list[int], **extra: Any) -> AgentLoopOutput:
    return AgentLoopOutput(
        prompt_ids=[1], response_ids=ids, response_mask=[1] * len(ids), metrics=AgentLoopMetrics(), extra_fields=extra
    )


def test_a_reason_to_stop_decides_where_an_agent_loop_hands_one_on() -> None:
    assert is_cut_off(_output([5], stop_reason="length"), 9, {2}) and is_cut_off(
        _output([5], finish_reason="abort"), 9, {2}
    )
    assert not is_cut_off(_output([5, 5], stop_reason="stop"), 2, {7})
    # verl's servers call both of them "completed"
    assert is_cut_off(_output([5, 5], stop_reason="completed"), 2, {7})
    assert not is_cut_off(_output([5, 7], stop_reason="completed"), 2, {7})


def test_the_models_generation_config_names_further_tokens_that_end_a_response() -> None:
    tokenizer = SimpleNamespace(eos_token_id=2)
    assert end_token_ids(tokenizer, SimpleNamespace(eos_token_id=[2, 151643])) == {2, 151643}
    assert end_token_ids(tokenizer, None) == {2} and end_token_ids(SimpleNamespace(eos_token_id=None), None) == set()


def test_the_first_error_of_a_group_is_kept_by_name_without_rays_traceback() -> None:
    from recipe.hdpo.algorithm.cliff import RolloutGroup

    group = RolloutGroup("u", 2)
    wrapped = RuntimeError("ray: a page of traceback")
    wrapped.cause = KeyError("score")  # type: ignore[attr-defined]
    group.lose(wrapped, 5.0, unscored=False)
    group.lose(ValueError("later"), 6.0, unscored=True)
    record = group.record("p", 1.0)
    assert (record.first_error, record.first_error_at) == ("KeyError: 'score'", 5.0)
    assert (record.size, record.lost_rollouts, record.unscored) == (2, 2, 1)


@pytest.mark.parametrize(("solution", "stands"), [(["step 1", "step 2"], "a list of texts"), ({"text": "S"}, "a dict")])
def test_a_solution_that_is_no_text_is_named_and_shown_to_nobody(
    chat_model, monkeypatch, caplog: pytest.LogCaptureFixture, solution: Any, stands: str
) -> None:
    with caplog.at_level(logging.WARNING):
        store, model, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG, solution=solution)
    assert store.record().no_solution == 2 and len(model.prompts) == 3
    assert f"no text at extra_info.solution, where {stands} stands" in caplog.text


def test_join_texts_joins_a_list_of_texts_by_line_breaks(chat_model, monkeypatch) -> None:
    solution: Any = ["step 1", "step 2"]
    join = "hdpo.privileged.join_texts=true"
    _, model, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG, join, solution=solution)
    assert len(model.prompts) == 5 and all("step 1\nstep 2" in prompt for prompt in model.prompts[3:])
