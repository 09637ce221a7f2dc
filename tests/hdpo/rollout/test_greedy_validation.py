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


def test_a_loop_of_the_users_own_is_given_nothing_more_for_the_greedy_rollout(
    chat_model, monkeypatch, tmp_path
) -> None:
    from omegaconf import OmegaConf

    from tests.hdpo.rollout.own_agents import PassingOn

    target = f"{PassingOn.__module__}.{PassingOn.__name__}"
    OmegaConf.save([{"name": "passing_on", "_target_": target, "question": ""}], tmp_path / "loops.yaml")
    rollout = "actor_rollout_ref.rollout"
    loops = f"{rollout}.agent.agent_loop_config_path={tmp_path / 'loops.yaml'}"
    PassingOn.given.clear()
    overrides = [f"{rollout}.val_kwargs.n=2", "hdpo.validate_greedy=true", loops]
    run_prompt(chat_model, monkeypatch, lambda _: WRONG, *overrides, validate=True, agent_name="passing_on")
    assert [given["session_id"] for given in PassingOn.given] == [-1, 0, 1]
    assert len({frozenset(given) for given in PassingOn.given}) == 1
    assert not any(name.startswith("hdpo") for given in PassingOn.given for name in given)
