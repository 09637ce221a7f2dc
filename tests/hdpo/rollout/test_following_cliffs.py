"""Under an asynchronous trainer a cliff waits for nothing; its privileged rollouts follow in rows of their own."""

from __future__ import annotations

import pytest

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord
from tests.hdpo.rollout.one_prompt import RIGHT, Store, run_prompt, solves_when_shown

ASYNC = "trainer.v1.trainer_mode=hdpo_colocate_async"


def follower(store: Store) -> str:
    [uid] = {key.split("_")[0] for key, where in store.partitions.items() if where == transfer.CLIFFS}
    return uid


def record_of(store: Store, uid: str) -> GroupRecord:
    [tag] = [tag for key, tag in store.events if key == transfer.record_key(uid)]
    record = transfer.record_of(tag)
    assert record is not None
    return record


def test_a_cliff_is_finished_before_any_privileged_rollout_and_these_are_a_group_of_their_own(
    chat_model, monkeypatch
) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, ASYNC, step=7)
    uid = follower(store)
    keys = [key for key, _ in store.events]
    finished = store.events.index(("uid-1", {"status": "finished"}))
    assert uid != "uid-1" and store.kept() == [f"{uid}_3_0", f"{uid}_4_0"]
    assert keys.index(uid) < finished < min(keys.index(key) for key in store.kept())
    assert store.events[keys.index(uid)] == (uid, {"is_prompt": True, "status": "pending", "global_steps": 7})
    assert store.events[-1] == (uid, {"status": "finished"})
    assert {where for key, where in store.partitions.items() if key.startswith("uid-1")} == {transfer.TRAIN}
    own, other = record_of(store, "uid-1"), record_of(store, uid)
    assert own.cliff and (own.rollouts, own.kept) == (0, 0)
    assert other.reissued and not other.cliff and (other.rollouts, other.kept) == (2, 2)
    assert own.prompt_id == other.prompt_id and len(model.prompts) == 5


def test_kept_rows_are_those_of_the_synchronous_trainer_token_by_token_and_say_which_weights_made_them(
    chat_model, monkeypatch
) -> None:
    sync, _, _ = run_prompt(chat_model, monkeypatch, solves_when_shown)
    late, _, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, ASYNC)
    assert len(sync.kept()) == len(late.kept()) == 2
    for ours, theirs in zip(late.kept(), sync.kept(), strict=True):
        for name in transfer.FIELDS:
            assert late.fields[ours][name].tolist() == sync.fields[theirs][name].tolist()
    tag = transfer.privileged_tag([1], [2], [3], weights=4)
    assert tag["min_global_steps"] == 4 and "min_global_steps" not in transfer.privileged_tag([1], [2], [3])


def test_the_row_on_record_is_enough_to_re_issue_the_cliff_after_a_resume(chat_model, monkeypatch) -> None:
    first, _, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, ASYNC)
    stored = first.fields[follower(first)]
    row = {name: value.data if hasattr(value, "data") else value for name, value in stored.items()}
    assert "global_steps" not in row  # verl adds the step in which it re-issues
    again, model, scored = run_prompt(chat_model, monkeypatch, solves_when_shown, ASYNC, row=row, solution=None)
    assert again.kept() == first.kept() and len(model.prompts) == 2
    assert set(again.partitions.values()) == {transfer.CLIFFS}
    assert all(transfer.PLAIN_PROMPT_IDS not in call and transfer.REISSUED not in call for call in scored)
    for key in again.kept():
        for name in transfer.FIELDS:
            assert again.fields[key][name].tolist() == first.fields[key][name].tolist()


@pytest.mark.parametrize(
    ("answer", "overrides"), [(lambda _: RIGHT, ()), (solves_when_shown, ("hdpo.privileged.n=0",))]
)
def test_nothing_follows_a_solved_group_or_where_there_are_no_privileged_rollouts(
    chat_model, monkeypatch, answer, overrides
) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, answer, ASYNC, *overrides)
    assert set(store.partitions.values()) == {transfer.TRAIN} and len(model.prompts) == 3


def test_a_cliff_without_a_solution_and_one_whose_privileged_rollouts_fail_still_finish(
    chat_model, monkeypatch
) -> None:
    store, _, _ = run_prompt(chat_model, monkeypatch, lambda _: "wrong", ASYNC, solution=None)
    assert (follower(store), {"status": "finished"}) in store.events
    assert record_of(store, follower(store)).no_solution == 2

    def trouble(prompt: str) -> str:
        if "SOLUTION" in prompt:
            raise RuntimeError("engine trouble")
        return "wrong"

    store, _, _ = run_prompt(chat_model, monkeypatch, trouble, ASYNC)
    assert (follower(store), {"status": "finished"}) in store.events
    assert record_of(store, follower(store)).errors == 2 and record_of(store, "uid-1").errors == 0
