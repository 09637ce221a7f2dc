"""What every knob of the rollout hook changes."""

from __future__ import annotations

from typing import Any

import pytest

from recipe.hdpo import transfer
from tests.hdpo.rollout.one_prompt import RIGHT, WRONG, run_prompt, solves_when_shown


def test_max_prompt_length_is_the_limit_and_full_responses_are_asked_for(chat_model, monkeypatch) -> None:
    fits, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown)
    assert fits.record().kept == 2
    assert model.max_tokens[:3] == [None] * 3 and model.max_tokens[3:] == [32, 32]
    longest = len(model.tokenizer(model.prompts[-1], add_special_tokens=False).input_ids)
    for limit, kept in ((longest, 2), (longest - 1, 0)):
        override = f"hdpo.privileged.max_prompt_length={limit}"
        record = run_prompt(chat_model, monkeypatch, solves_when_shown, override)[0].record()
        assert (record.kept, record.too_long) == (kept, 2 - kept)


def test_source_answer_shows_the_answer_alone(chat_model, monkeypatch) -> None:
    _, model, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG, "hdpo.privileged.source=answer")
    assert all("ANSWER" in p and "SOLUTION" not in p for p in model.prompts[3:])


def test_source_prefix_shows_the_first_part_alone_and_a_solution_without_one_is_skipped(
    chat_model, monkeypatch
) -> None:
    prefix = "hdpo.privileged.source=prefix:0.5"
    skipped, model, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG, prefix)
    assert (skipped.record().no_solution, len(model.prompts)) == (2, 3)
    _, model, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG, prefix, solution="FIRST PART\nLAST PART")
    assert len(model.prompts) == 5
    assert all("FIRST PART" in p and "LAST PART" not in p for p in model.prompts[3:])


def test_keep_all_keeps_wrong_privileged_rollouts_too(chat_model, monkeypatch) -> None:
    store, _, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG, "hdpo.privileged.keep=all")
    record = store.record()
    assert store.kept() == ["uid-1_3_0", "uid-1_4_0"]
    assert (record.rollouts, record.solved_privileged, record.kept) == (2, 0, 2)


def test_matched_compute_runs_the_plain_prompt_and_a_success_takes_the_place_of_a_failure(
    chat_model, monkeypatch
) -> None:
    answers = iter([WRONG, WRONG, WRONG, WRONG, RIGHT])
    control = ["hdpo.privileged.source=problem", "hdpo.privileged.use=replace"]
    store, model, _ = run_prompt(chat_model, monkeypatch, lambda _: next(answers), *control)
    assert len(model.prompts) == 5 and len(set(model.prompts)) == 1 and "SOLUTION" not in model.prompts[0]
    assert store.kept() == [] and store.record().cliff
    rewards = {key: float(row["rm_scores"].sum()) for key, row in store.fields.items()}
    [replaced] = [key for key, reward in rewards.items() if reward == 1.0]
    assert set(rewards) == {"uid-1_0_0", "uid-1_1_0", "uid-1_2_0"} and replaced != "uid-1_2_0"
    assert model.tokenizer.decode(store.fields[replaced]["responses"]) == RIGHT
    assert store.events[-1] == ("uid-1", {"status": "finished"})


def test_the_hint_baseline_trains_on_the_privileged_prompt(chat_model, monkeypatch) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, "hdpo.privileged.use=replace")
    prompts = {key: model.tokenizer.decode(row["prompts"]) for key, row in store.fields.items()}
    assert {key for key, prompt in prompts.items() if "SOLUTION" in prompt} == {"uid-1_0_0", "uid-1_1_0"}
    assert set(prompts) == {"uid-1_0_0", "uid-1_1_0", "uid-1_2_0"} and store.record().kept == 2


def test_every_rollout_has_a_seed_of_its_own_that_repeats(chat_model, monkeypatch) -> None:
    def seeds(*overrides: str, **options: Any) -> list:
        return run_prompt(chat_model, monkeypatch, solves_when_shown, *overrides, **options)[1].seeds

    once = seeds("hdpo.rollout_seed=3")
    assert len(set(once)) == 5 and set(once) == set(seeds("hdpo.rollout_seed=3"))
    assert not set(once) & set(seeds("hdpo.rollout_seed=4"))
    assert seeds() == [None] * 5
    assert not set(once) & set(seeds("hdpo.rollout_seed=3", step=2))
    assert not set(once) & set(seeds("hdpo.rollout_seed=3", messages=[{"role": "user", "content": "OTHER"}]))
    override = ["hdpo.rollout_seed=3", "actor_rollout_ref.rollout.val_kwargs.n=2"]
    in_validation = run_prompt(chat_model, monkeypatch, solves_when_shown, *override, validate=True)[1].seeds
    assert len(set(in_validation)) == 2 and set(in_validation) < set(once)


def test_success_reward_decides_what_a_cliff_is(chat_model, monkeypatch) -> None:
    store, _, _ = run_prompt(chat_model, monkeypatch, lambda _: RIGHT, "hdpo.success_reward=2.0")
    assert store.record().cliff and store.record().kept == 0 and store.kept() == []
    store, _, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG, "hdpo.success_reward=0.0")
    assert not store.record().cliff


def test_success_reward_decides_which_privileged_rollouts_are_kept(chat_model, monkeypatch) -> None:
    graded = {"half": 0.5, "some": 0.3}
    privileged = iter(["half", "some"])
    answer = lambda prompt: next(privileged) if "SOLUTION" in prompt else "some"  # noqa: E731
    store, model, _ = run_prompt(chat_model, monkeypatch, answer, "hdpo.success_reward=0.5", scores=graded)
    record = store.record()
    assert record.cliff and (record.rollouts, record.solved_privileged, record.kept) == (2, 1, 1)
    assert [model.tokenizer.decode(store.fields[key][transfer.RESPONSE]) for key in store.kept()] == ["half"]


def test_template_and_placement_are_the_users(chat_model, monkeypatch) -> None:
    template = "hdpo.privileged.template='T {{ solution }} {{ answer }} {{ problem }}'"
    _, model, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG, template)
    assert all("user\nT SOLUTION ANSWER PROBLEM" in p for p in model.prompts[3:])
    _, model, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG, template, "hdpo.privileged.placement=system")
    for prompt in model.prompts[3:]:
        assert "system\nT SOLUTION ANSWER PROBLEM" in prompt and prompt.count("PROBLEM") == 2


def test_solution_and_answer_stand_where_the_keys_say(chat_model, monkeypatch) -> None:
    template = "hdpo.privileged.template='{{ problem }} {{ solution }}, {{ answer }}'"
    keys = ["hdpo.privileged.solution_key=extra_info.another", "hdpo.privileged.answer_key=extra_info.solution"]
    _, model, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG, template, *keys)
    assert all("ANOTHER, SOLUTION" in prompt for prompt in model.prompts[3:])


def test_n_0_runs_no_privileged_rollouts_but_still_counts_cliffs(chat_model, monkeypatch) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, "hdpo.privileged.n=0")
    assert len(model.prompts) == 3 and store.record().cliff


@pytest.mark.parametrize("reissued", [False, True])
@pytest.mark.parametrize("schedule", ["same_step", "next_step"])
def test_n_0_looks_for_no_solution_and_lets_no_cliff_wait(
    chat_model, monkeypatch, caplog: pytest.LogCaptureFixture, schedule: str, reissued: bool
) -> None:
    options: dict[str, Any] = {"solution": None, "reissued": reissued}
    overrides = ("hdpo.privileged.n=0", f"hdpo.privileged.schedule={schedule}")
    store, *_ = run_prompt(chat_model, monkeypatch, lambda _: WRONG, *overrides, **options)
    record = store.record()
    assert (record.cliff, record.plain_prompt_ids, record.no_solution, record.errors) == (not reissued, [], 0, 0)
    assert "is skipped" not in caplog.text and store.events[-1] == ("uid-1", {"status": "finished"})


def test_chat_template_kwargs_are_the_privileged_prompts_alone(chat_model, monkeypatch) -> None:
    says = "'{% if effort is defined %}{{ effort }} {% endif %}{% for m in messages %}{{ m.content }}{% endfor %}:'"
    options = (
        f"actor_rollout_ref.model.custom_chat_template={says}",
        "+data.apply_chat_template_kwargs.effort=high",
        "+hdpo.privileged.chat_template_kwargs.effort=low",
    )
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, *options)
    assert model.prompts[:3] == ["high PROBLEM:"] * 3
    assert all(prompt.startswith("low PROBLEM") and "SOLUTION" in prompt for prompt in model.prompts[3:])
    row = store.fields[store.kept()[0]]
    read = [
        model.tokenizer.decode(row[name])[:5].strip() for name in (transfer.STUDENT_PROMPT, transfer.TEACHER_PROMPT)
    ]
    assert read == ["high", "low P"] and len(store.kept()) == 2
