"""Validation prompts: no privileged rollouts; a greedy one where asked for."""

from __future__ import annotations

from recipe.hdpo import transfer
from tests.hdpo.rollout.one_prompt import RIGHT, WRONG, run_prompt, solves_when_shown


def test_nothing_of_this_happens_in_validation(chat_model, monkeypatch) -> None:
    override = "actor_rollout_ref.rollout.val_kwargs.n=3"
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_when_shown, override, validate=True)
    assert len(model.prompts) == 3 and store.kept() == []
    assert not [tag for _, tag in store.events if transfer.record_of(tag)]


def test_validation_adds_one_greedy_rollout_per_prompt_where_asked_and_hands_its_score_on(
    chat_model, monkeypatch
) -> None:
    from recipe.hdpo.rollout.greedy_validation import GREEDY_SCORE

    answers = iter([RIGHT, WRONG, WRONG])
    overrides = ["actor_rollout_ref.rollout.val_kwargs.n=2", "hdpo.validate_greedy=true"]
    store, model, _ = run_prompt(chat_model, monkeypatch, lambda _: next(answers), *overrides, validate=True)
    assert model.temperatures == [0, 1.0, 1.0]  # the greedy one is over before the others start
    assert set(store.fields) == {"uid-1_0_0", "uid-1_1_0"}
    for row in store.fields.values():
        assert row["extra_fields"]["reward_extra_info"] == {GREEDY_SCORE: 1.0}
        assert float(row["rm_scores"].sum()) == 0.0


def test_a_lost_greedy_rollout_leaves_the_samples_and_counts_as_wrong(chat_model, monkeypatch) -> None:
    from recipe.hdpo.rollout.greedy_validation import GREEDY_SCORE
    from recipe.hdpo.tracking.validation_metrics import greedy_accuracy

    calls = iter(range(9))

    def answer(prompt: str) -> str:
        if next(calls) == 0:
            raise RuntimeError("engine trouble")
        return RIGHT

    overrides = ["actor_rollout_ref.rollout.val_kwargs.n=2", "hdpo.validate_greedy=true"]
    store, _, _ = run_prompt(chat_model, monkeypatch, answer, *overrides, validate=True)
    assert store.events[-1] == ("uid-1", {"status": "finished"}) and len(store.fields) == 2
    scores = [row["extra_fields"]["reward_extra_info"][GREEDY_SCORE] for row in store.fields.values()]
    expected = {("d", "u"): 2, ("d", "v"): 1}
    assert greedy_accuracy(expected, ["u", "u", "v"], [*scores, 1.0]) == {"val-hdpo/d/greedy": 0.5}
