"""The rollout hook: cliffs, kept rows, records, and what goes wrong; one prompt at a time."""

from __future__ import annotations

import pytest

from recipe.hdpo import transfer
from tests.hdpo.rollout.one_prompt import RIGHT, WRONG, run_prompt, solves_when_shown


def test_a_cliff_is_re_issued_with_its_solution_and_solved_rollouts_are_kept(chat_model, monkeypatch) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown)
    record = store.record()
    assert record.cliff and (record.rollouts, record.kept) == (2, 2)
    assert store.kept() == ["uid-1_3_0", "uid-1_4_0"]
    for key in store.kept():
        decoded = {name: model.tokenizer.decode(store.fields[key][name]) for name in transfer.TEXTS}
        assert "SOLUTION" in decoded[transfer.TEACHER_PROMPT] and "PROBLEM" in decoded[transfer.TEACHER_PROMPT]
        assert "SOLUTION" not in decoded[transfer.STUDENT_PROMPT] and "PROBLEM" in decoded[transfer.STUDENT_PROMPT]
        assert decoded[transfer.RESPONSE] == RIGHT
        assert store.fields[key][transfer.RESPONSE_MASK].tolist() == [1] * len(model.tokenizer(RIGHT).input_ids)
    assert record.kept_tokens == 2 * len(model.tokenizer(RIGHT).input_ids)


def test_the_record_and_the_kept_rows_are_written_before_the_group_is_finished(chat_model, monkeypatch) -> None:
    store, _, _ = run_prompt(chat_model, monkeypatch, solves_when_shown)
    keys = [key for key, _ in store.events]
    assert store.events[-1] == ("uid-1", {"status": "finished"})
    assert keys.index("uid-1_hdpo_0") < len(keys) - 1
    assert set([k for k in keys if k.startswith("uid-1_")][:3]) == {"uid-1_0_0", "uid-1_1_0", "uid-1_2_0"}


def test_the_reward_function_never_sees_privileged_information(chat_model, monkeypatch) -> None:
    _, _, scored = run_prompt(chat_model, monkeypatch, solves_when_shown)
    assert len(scored) == 5
    for call in scored:
        assert call["raw_prompt"] == [{"role": "user", "content": "PROBLEM"}]
        assert "SOLUTION" not in call["prompt"]
        assert "hdpo_privileged_rollout" not in call


def test_a_group_with_one_success_is_left_alone(chat_model, monkeypatch) -> None:
    answers = iter([WRONG, RIGHT, WRONG])
    store, model, _ = run_prompt(chat_model, monkeypatch, lambda _: next(answers))
    assert len(model.prompts) == 3 and store.kept() == []
    assert not store.record().cliff and store.record().solved


def test_unsolved_privileged_rollouts_are_not_kept(chat_model, monkeypatch) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, lambda _: WRONG)
    assert len(model.prompts) == 5 and store.kept() == []
    assert (store.record().rollouts, store.record().kept) == (2, 0)


def test_a_privileged_rollout_that_raises_costs_the_group_nothing(chat_model, monkeypatch) -> None:
    def answer(prompt: str) -> str:
        if "SOLUTION" in prompt:
            raise RuntimeError("engine trouble")
        return WRONG

    store, _, _ = run_prompt(chat_model, monkeypatch, answer)
    assert store.events[-1] == ("uid-1", {"status": "finished"})
    assert {"uid-1_0_0", "uid-1_1_0", "uid-1_2_0"} <= {key for key, _ in store.events}
    assert (store.record().errors, store.record().kept) == (2, 0)
    assert store.record().privileged_error == "RuntimeError: engine trouble"


def test_a_prompt_without_user_message_is_an_error_of_its_record_and_costs_the_group_nothing(
    chat_model, monkeypatch
) -> None:
    messages = [{"role": "system", "content": "PROBLEM"}]
    store, *_ = run_prompt(chat_model, monkeypatch, solves_when_shown, messages=messages)
    assert store.events[-1] == ("uid-1", {"status": "finished"})
    assert {"uid-1_0_0", "uid-1_1_0", "uid-1_2_0"} <= {key for key, _ in store.events}
    assert store.record().cliff and (store.record().errors, store.record().rollouts) == (1, 0)


def test_a_lost_normal_rollout_is_counted_and_starts_no_privileged_ones(chat_model, monkeypatch) -> None:
    calls = iter(range(9))

    def answer(prompt: str) -> str:
        if next(calls) == 1:
            raise RuntimeError("engine trouble")
        return WRONG

    store, model, _ = run_prompt(chat_model, monkeypatch, answer)
    assert store.events[-1] == ("uid-1", {"status": "failure"})
    assert len(model.prompts) == 3
    assert not store.record().cliff and store.record().lost_rollouts == 1


@pytest.mark.parametrize(
    ("mode", "refill", "leaves_nothing"),
    [("hdpo", False, False), ("hdpo", True, True), ("hdpo_colocate_async", True, False)],
)
def test_a_group_that_lost_every_rollout_leaves_nothing_where_verl_refills_such_groups(
    chat_model, monkeypatch, mode: str, refill: bool, leaves_nothing: bool
) -> None:
    """Asynchronous trainers replace all groups that lost a rollout, whatever that setting says."""

    def answer(prompt: str) -> str:
        raise RuntimeError("engine trouble")

    setting = f"trainer.v1.sampler.sync_refill_failed_groups={str(refill).lower()}"
    store, *_ = run_prompt(chat_model, monkeypatch, answer, setting, f"trainer.v1.trainer_mode={mode}")
    # verl takes a group for failed when no key begins with its uid.
    assert any(key.startswith("uid-1_") for key, _ in store.events) != leaves_nothing


def test_a_privileged_prompt_that_does_not_fit_is_skipped_and_counted_never_cut(chat_model, monkeypatch) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, solution="SOLUTION " * 60)
    assert store.record().too_long == 2 and store.kept() == []
    assert len(model.prompts) == 3
    assert store.events[-1] == ("uid-1", {"status": "finished"})


def test_a_row_without_solution_is_skipped_and_counted(chat_model, monkeypatch) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, solution=None)
    assert store.record().cliff and store.record().no_solution == 2
    assert len(model.prompts) == 3
