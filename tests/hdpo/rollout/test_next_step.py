"""``hdpo.privileged.schedule=next_step``: a cliff's step ends without privileged rollouts; the next one has them."""

from __future__ import annotations

from recipe.hdpo import transfer
from tests.hdpo.rollout.one_prompt import RIGHT, run_prompt, solves_when_shown

NEXT = "hdpo.privileged.schedule=next_step"


def test_a_cliff_is_recorded_and_nothing_privileged_runs_in_its_step(chat_model, monkeypatch) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, NEXT)
    record = store.record()
    assert record.cliff and not record.reissued and (record.size, record.rollouts) == (3, 0)
    assert len(model.prompts) == 3 and store.kept() == []


def test_a_re_issued_cliff_has_privileged_rollouts_alone_and_is_no_group_of_its_step(chat_model, monkeypatch) -> None:
    store, model, scored = run_prompt(chat_model, monkeypatch, solves_when_shown, NEXT, reissued=True)
    record = store.record()
    assert (record.rollouts, record.kept, record.size, record.lost_rollouts) == (2, 2, 0, 0)
    assert record.reissued and not record.cliff and not record.solved
    assert len(model.prompts) == 2 and all("SOLUTION" in prompt for prompt in model.prompts)
    assert all("SOLUTION" not in call["prompt"] and transfer.REISSUED not in call for call in scored)
    assert store.events[-2:] == [("uid-1_hdpo_0", transfer.record_tag(record)), ("uid-1", {"status": "finished"})]


def test_kept_rows_are_those_of_the_same_step_schedule_token_by_token(chat_model, monkeypatch) -> None:
    seeded = ("hdpo.rollout_seed=3",)
    same, same_model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, *seeded)
    late, late_model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, NEXT, *seeded, reissued=True)
    assert same.kept() == late.kept() == ["uid-1_3_0", "uid-1_4_0"]
    for key in same.kept():
        for name in transfer.FIELDS:
            assert same.fields[key][name].tolist() == late.fields[key][name].tolist()
    assert same_model.seeds[-2:] == late_model.seeds and same_model.max_tokens[-2:] == late_model.max_tokens


def test_a_re_issued_cliff_that_fails_in_every_way_still_finishes_and_says_so(chat_model, monkeypatch) -> None:
    def trouble(prompt: str) -> str:
        raise RuntimeError("engine trouble")

    store, *_ = run_prompt(chat_model, monkeypatch, trouble, NEXT, reissued=True)
    assert store.events[-1] == ("uid-1", {"status": "finished"}) and store.record().errors == 2
    without = [{"role": "system", "content": "PROBLEM"}]
    store, *_ = run_prompt(chat_model, monkeypatch, solves_when_shown, NEXT, reissued=True, messages=without)
    assert store.events[-1] == ("uid-1", {"status": "finished"}) and store.record().errors == 1
    store, *_ = run_prompt(chat_model, monkeypatch, lambda _: RIGHT, NEXT, reissued=True, solution=None)
    assert store.events[-1] == ("uid-1", {"status": "finished"}) and store.record().no_solution == 2


def test_a_cliff_of_a_checkpoint_without_its_token_ids_is_counted_as_an_error_and_still_ends(
    chat_model, monkeypatch
) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, NEXT, reissued=True, plain_ids=False)
    record = store.record()
    assert (record.errors, record.rollouts, model.prompts) == (1, 0, [])
    assert store.events[-1] == ("uid-1", {"status": "finished"})
