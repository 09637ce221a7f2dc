"""The rollout hook on verl's own agent loop, tokenizer and chat template.

The language model, the reward worker and TransferQueue are stand-ins that the test controls, so that errors and
overlong prompts can be provoked; the end-to-end test runs the same code with the real ones.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from recipe.hdpo import rows
from recipe.hdpo.metrics import GroupRecord

RIGHT, WRONG = "right", "wrong"


class Store:
    """TransferQueue's two calls, in memory and in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict]] = []
        self.fields: dict[str, Any] = {}

    async def async_kv_put(self, key: str, partition_id: str, tag: dict) -> None:
        self.events.append((key, tag))

    async def async_kv_batch_put(self, keys: list[str], fields: Any, tags: list[dict], partition_id: str) -> None:
        self.events += list(zip(keys, tags, strict=True))
        for i, key in enumerate(keys):
            self.fields[key] = fields[i]

    def record(self) -> GroupRecord:
        [record] = [r for _, tag in self.events if (r := GroupRecord.from_tag(tag))]
        return record

    def kept(self) -> list[str]:
        return sorted(key for key, tag in self.events if tag.get(rows.PRIVILEGED_TAG))


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


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.hdpo.fsdp_ranks import make_chat_model

    folder = tmp_path_factory.mktemp("chat")
    make_chat_model(folder)
    return folder


def run_prompt(
    model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    *overrides: str,
    solution: str | None = "SOLUTION",
    validate: bool = False,
) -> tuple[Store, Model, list[dict]]:
    """One prompt through ``_run_prompt``; returns the store, the model and what the reward function was given."""
    from transformers import AutoTokenizer
    from verl.trainer.ppo.v1 import agent_loop_tq
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from recipe.hdpo import rollout
    from recipe.hdpo.config.checks import read_hdpo
    from recipe.hdpo.privileged import PrivilegedPromptBuilder, compile_template

    with initialize_config_module("recipe.hdpo.config", version_base=None):
        config = compose(
            "hdpo_trainer",
            overrides=[
                f"actor_rollout_ref.model.path={model_dir}",
                "actor_rollout_ref.rollout.n=3",
                "data.max_prompt_length=64",
                "data.max_response_length=32",
                "actor_rollout_ref.rollout.max_model_len=512",
                "hdpo.privileged.n=2",
                *overrides,
            ],
        )
    OmegaConf.resolve(config)
    store, tokenizer = Store(), AutoTokenizer.from_pretrained(model_dir)
    monkeypatch.setattr(agent_loop_tq, "tq", store)
    monkeypatch.setattr(rollout, "tq", store)
    worker = rollout.HDPOAgentLoopWorker.__new__(rollout.HDPOAgentLoopWorker)
    hdpo = read_hdpo(config)
    options = hdpo.privileged
    model = Model(tokenizer, answer)
    vars(worker).update(
        config=config,
        hdpo=hdpo,
        groups={},
        greedy_scores={},
        llm_client=model,
        tokenizer=tokenizer,
        processor=None,
        hf_model_type="qwen2",
        dataset_cls=RLHFDataset,
        tools=[],
        distillation_enabled=False,
        mm_processor_kwargs={},
        prompt_builder=PrivilegedPromptBuilder(
            compile_template(options.template, options.placement),
            options.placement,
            options.source,
            options.solution_key,
            options.answer_key,
        ),
    )
    scored: list[dict] = []

    async def compute_score(outputs: list, kwargs: dict) -> None:
        if outputs[-1].reward_score is not None:  # as verl's, which the contract tests check
            return
        text = tokenizer.decode(outputs[-1].response_ids)
        scored.append({"prompt": tokenizer.decode(outputs[-1].prompt_ids), **kwargs})
        outputs[-1].reward_score = float(text == RIGHT)
        outputs[-1].extra_fields["reward_extra_info"] = {}

    monkeypatch.setattr(worker, "_compute_score", compute_score, raising=False)
    prompt = {
        "uid": "uid-1",
        "raw_prompt": [{"role": "user", "content": "PROBLEM"}],
        "agent_name": "single_turn_agent",
        "data_source": "d",
        "global_steps": 1,
        "reward_model": {"ground_truth": "ANSWER"},
        "extra_info": {"solution": solution},
    }
    trajectory = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": validate}
    asyncio.run(worker._run_prompt(prompt, {"temperature": 1.0}, trajectory))
    assert worker.groups == {}
    return store, model, scored


def solves_when_shown(prompt: str) -> str:
    return RIGHT if "SOLUTION" in prompt else WRONG


def test_a_cliff_is_re_issued_with_its_solution_and_solved_rollouts_are_kept(model_dir, monkeypatch) -> None:
    store, model, _ = run_prompt(model_dir, monkeypatch, solves_when_shown)
    record = store.record()
    assert record.cliff and (record.rollouts, record.kept) == (2, 2)
    assert store.kept() == ["uid-1_3_0", "uid-1_4_0"]
    for key in store.kept():
        decoded = {name: model.tokenizer.decode(store.fields[key][name]) for name in rows.FIELDS}
        assert "SOLUTION" in decoded[rows.TEACHER_PROMPT] and "PROBLEM" in decoded[rows.TEACHER_PROMPT]
        assert "SOLUTION" not in decoded[rows.STUDENT_PROMPT] and "PROBLEM" in decoded[rows.STUDENT_PROMPT]
        assert decoded[rows.RESPONSE] == RIGHT
    assert record.kept_tokens == 2 * len(model.tokenizer(RIGHT).input_ids)


def test_the_record_and_the_kept_rows_are_written_before_the_group_is_finished(model_dir, monkeypatch) -> None:
    store, _, _ = run_prompt(model_dir, monkeypatch, solves_when_shown)
    keys = [key for key, _ in store.events]
    assert store.events[-1] == ("uid-1", {"status": "finished"})
    assert keys.index("uid-1_hdpo_0") < len(keys) - 1
    assert set([k for k in keys if k.startswith("uid-1_")][:3]) == {"uid-1_0_0", "uid-1_1_0", "uid-1_2_0"}


def test_the_reward_function_never_sees_privileged_information(model_dir, monkeypatch) -> None:
    _, _, scored = run_prompt(model_dir, monkeypatch, solves_when_shown)
    assert len(scored) == 5
    for call in scored:
        assert call["raw_prompt"] == [{"role": "user", "content": "PROBLEM"}]
        assert "SOLUTION" not in call["prompt"]
        assert "hdpo_privileged_rollout" not in call


def test_a_group_with_one_success_is_left_alone(model_dir, monkeypatch) -> None:
    answers = iter([WRONG, RIGHT, WRONG])
    store, model, _ = run_prompt(model_dir, monkeypatch, lambda _: next(answers))
    assert len(model.prompts) == 3 and store.kept() == []
    assert not store.record().cliff and store.record().solved


def test_unsolved_privileged_rollouts_are_not_kept(model_dir, monkeypatch) -> None:
    store, model, _ = run_prompt(model_dir, monkeypatch, lambda _: WRONG)
    assert len(model.prompts) == 5 and store.kept() == []
    assert (store.record().rollouts, store.record().kept) == (2, 0)


def test_a_privileged_rollout_that_raises_costs_the_group_nothing(model_dir, monkeypatch) -> None:
    def answer(prompt: str) -> str:
        if "SOLUTION" in prompt:
            raise RuntimeError("engine trouble")
        return WRONG

    store, _, _ = run_prompt(model_dir, monkeypatch, answer)
    assert store.events[-1] == ("uid-1", {"status": "finished"})
    assert {"uid-1_0_0", "uid-1_1_0", "uid-1_2_0"} <= {key for key, _ in store.events}
    assert (store.record().errors, store.record().kept) == (2, 0)


def test_a_lost_normal_rollout_is_counted_and_starts_no_privileged_ones(model_dir, monkeypatch) -> None:
    calls = iter(range(9))

    def answer(prompt: str) -> str:
        if next(calls) == 1:
            raise RuntimeError("engine trouble")
        return WRONG

    store, model, _ = run_prompt(model_dir, monkeypatch, answer)
    assert store.events[-1] == ("uid-1", {"status": "failure"})
    assert len(model.prompts) == 3
    assert not store.record().cliff and store.record().lost_rollouts == 1


@pytest.mark.parametrize("refill", [False, True])
def test_a_group_that_lost_every_rollout_leaves_nothing_where_verl_refills_such_groups(
    model_dir, monkeypatch, refill
) -> None:
    def answer(prompt: str) -> str:
        raise RuntimeError("engine trouble")

    setting = f"trainer.v1.sampler.sync_refill_failed_groups={str(refill).lower()}"
    store, *_ = run_prompt(model_dir, monkeypatch, answer, setting)
    # verl takes a group for failed when no key begins with its uid.
    assert any(key.startswith("uid-1_") for key, _ in store.events) != refill


def test_a_privileged_prompt_that_does_not_fit_is_skipped_and_counted_never_cut(model_dir, monkeypatch) -> None:
    store, model, _ = run_prompt(model_dir, monkeypatch, solves_when_shown, solution="SOLUTION " * 60)
    assert store.record().too_long == 2 and store.kept() == []
    assert len(model.prompts) == 3
    assert store.events[-1] == ("uid-1", {"status": "finished"})


def test_max_prompt_length_is_the_limit_and_full_responses_are_asked_for(model_dir, monkeypatch) -> None:
    fits, model, _ = run_prompt(model_dir, monkeypatch, solves_when_shown)
    assert fits.record().kept == 2
    assert model.max_tokens[:3] == [None] * 3 and model.max_tokens[3:] == [32, 32]
    limit = "hdpo.privileged.max_prompt_length=100"
    assert run_prompt(model_dir, monkeypatch, solves_when_shown, limit)[0].record().too_long == 2


def test_a_row_without_solution_is_skipped_and_counted(model_dir, monkeypatch) -> None:
    store, model, _ = run_prompt(model_dir, monkeypatch, solves_when_shown, solution=None)
    assert store.record().cliff and store.record().no_solution == 2
    assert len(model.prompts) == 3


def test_source_answer_shows_the_answer_alone(model_dir, monkeypatch) -> None:
    _, model, _ = run_prompt(model_dir, monkeypatch, lambda _: WRONG, "hdpo.privileged.source=answer")
    assert all("ANSWER" in p and "SOLUTION" not in p for p in model.prompts[3:])


def test_keep_all_keeps_wrong_privileged_rollouts_too(model_dir, monkeypatch) -> None:
    store, _, _ = run_prompt(model_dir, monkeypatch, lambda _: WRONG, "hdpo.privileged.keep=all")
    record = store.record()
    assert store.kept() == ["uid-1_3_0", "uid-1_4_0"]
    assert (record.rollouts, record.solved_privileged, record.kept) == (2, 0, 2)


def test_matched_compute_runs_the_plain_prompt_and_a_success_takes_the_place_of_a_failure(
    model_dir, monkeypatch
) -> None:
    answers = iter([WRONG, WRONG, WRONG, WRONG, RIGHT])
    control = ["hdpo.privileged.source=problem", "hdpo.privileged.use=replace"]
    store, model, _ = run_prompt(model_dir, monkeypatch, lambda _: next(answers), *control)
    assert len(model.prompts) == 5 and len(set(model.prompts)) == 1 and "SOLUTION" not in model.prompts[0]
    assert store.kept() == [] and store.record().cliff
    rewards = {key: float(row["rm_scores"].sum()) for key, row in store.fields.items()}
    [replaced] = [key for key, reward in rewards.items() if reward == 1.0]
    assert set(rewards) == {"uid-1_0_0", "uid-1_1_0", "uid-1_2_0"} and replaced != "uid-1_2_0"
    assert model.tokenizer.decode(store.fields[replaced]["responses"]) == RIGHT
    assert store.events[-1] == ("uid-1", {"status": "finished"})


def test_the_hint_baseline_trains_on_the_privileged_prompt(model_dir, monkeypatch) -> None:
    store, model, _ = run_prompt(model_dir, monkeypatch, solves_when_shown, "hdpo.privileged.use=replace")
    prompts = {key: model.tokenizer.decode(row["prompts"]) for key, row in store.fields.items()}
    assert {key for key, prompt in prompts.items() if "SOLUTION" in prompt} == {"uid-1_0_0", "uid-1_1_0"}
    assert set(prompts) == {"uid-1_0_0", "uid-1_1_0", "uid-1_2_0"} and store.record().kept == 2


def test_every_rollout_has_a_seed_of_its_own_that_repeats(model_dir, monkeypatch) -> None:
    def seeds(*overrides: str) -> list:
        return run_prompt(model_dir, monkeypatch, solves_when_shown, *overrides)[1].seeds

    once = seeds("hdpo.rollout_seed=3")
    assert len(set(once)) == 5 and set(once) == set(seeds("hdpo.rollout_seed=3"))
    assert not set(once) & set(seeds("hdpo.rollout_seed=4"))
    assert seeds() == [None] * 5
    override = ["hdpo.rollout_seed=3", "actor_rollout_ref.rollout.val_kwargs.n=2"]
    in_validation = run_prompt(model_dir, monkeypatch, solves_when_shown, *override, validate=True)[1].seeds
    assert len(set(in_validation)) == 2 and set(in_validation) < set(once)


def test_success_reward_decides_what_a_cliff_is(model_dir, monkeypatch) -> None:
    store, _, _ = run_prompt(model_dir, monkeypatch, lambda _: RIGHT, "hdpo.success_reward=2.0")
    assert store.record().cliff
    store, _, _ = run_prompt(model_dir, monkeypatch, lambda _: WRONG, "hdpo.success_reward=0.0")
    assert not store.record().cliff


def test_n_0_runs_no_privileged_rollouts_but_still_counts_cliffs(model_dir, monkeypatch) -> None:
    store, model, _ = run_prompt(model_dir, monkeypatch, solves_when_shown, "hdpo.privileged.n=0")
    assert len(model.prompts) == 3 and store.record().cliff


def test_nothing_of_this_happens_in_validation(model_dir, monkeypatch) -> None:
    override = "actor_rollout_ref.rollout.val_kwargs.n=3"
    store, model, _ = run_prompt(model_dir, monkeypatch, solves_when_shown, override, validate=True)
    assert len(model.prompts) == 3 and store.kept() == []
    assert not [tag for _, tag in store.events if GroupRecord.from_tag(tag)]


def test_validation_adds_one_greedy_rollout_per_prompt_where_asked_and_hands_its_score_on(
    model_dir, monkeypatch
) -> None:
    from recipe.hdpo.greedy import GREEDY_SCORE

    answers = iter([RIGHT, WRONG, WRONG])
    overrides = ["actor_rollout_ref.rollout.val_kwargs.n=2", "hdpo.validate_greedy=true"]
    store, model, _ = run_prompt(model_dir, monkeypatch, lambda _: next(answers), *overrides, validate=True)
    assert model.temperatures == [0, 1.0, 1.0]  # the greedy one is over before the others start
    assert set(store.fields) == {"uid-1_0_0", "uid-1_1_0"}
    for row in store.fields.values():
        assert row["extra_fields"]["reward_extra_info"] == {GREEDY_SCORE: 1.0}
        assert float(row["rm_scores"].sum()) == 0.0


def test_a_lost_greedy_rollout_leaves_the_samples_and_counts_as_wrong(model_dir, monkeypatch) -> None:
    from recipe.hdpo.evaluation.validation import greedy_accuracy
    from recipe.hdpo.greedy import GREEDY_SCORE

    calls = iter(range(9))

    def answer(prompt: str) -> str:
        if next(calls) == 0:
            raise RuntimeError("engine trouble")
        return RIGHT

    overrides = ["actor_rollout_ref.rollout.val_kwargs.n=2", "hdpo.validate_greedy=true"]
    store, _, _ = run_prompt(model_dir, monkeypatch, answer, *overrides, validate=True)
    assert store.events[-1] == ("uid-1", {"status": "finished"}) and len(store.fields) == 2
    scores = [row["extra_fields"]["reward_extra_info"][GREEDY_SCORE] for row in store.fields.values()]
    expected = {("d", "u"): 2, ("d", "v"): 1}
    assert greedy_accuracy(expected, ["u", "u", "v"], [*scores, 1.0]) == {"val-hdpo/d/greedy": 0.5}
