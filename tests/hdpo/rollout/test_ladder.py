"""The ladder in the rollout hook: the next source for cliffs that the last one did not solve, one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from recipe.hdpo import transfer
from tests.hdpo.rollout.one_prompt import RIGHT, WRONG, Store, run_prompt
from tests.hdpo.rollout.test_following_cliffs import ASYNC, follower, record_of
from tests.hdpo.rollout.test_next_step import NEXT

LADDER = ("hdpo.privileged.source=[answer,prefix:0.5,solution]", "hdpo.privileged.n=5")
TEXTS = {"solution": "FIRST PART\nLAST PART"}
SOURCES = {"answer": "ANSWER", "prefix:0.5": "FIRST PART", "solution": "LAST PART"}


def shown(prompt: str) -> str | None:
    """The most telling source that a prompt shows."""
    return next((source for source, text in reversed(SOURCES.items()) if text in prompt), None)


def solves_with(*sources: str) -> Callable[[str], str]:
    return lambda prompt: RIGHT if shown(prompt) in sources else WRONG


def counts(rollouts: int, solved: int, kept: int) -> dict[str, int]:
    return {"rollouts": rollouts, "solved": solved, "kept": kept}


def sources_of(store: Store) -> dict[str, str]:
    return {key: tag[transfer.SOURCE] for key, tag in store.events if tag.get(transfer.PRIVILEGED_TAG)}


def test_each_rung_is_tried_until_one_solves_and_every_rollout_is_counted_for_its_source(
    chat_model, monkeypatch
) -> None:
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_with("solution"), *LADDER, **TEXTS)
    assert [shown(prompt) for prompt in model.prompts] == [None] * 3 + ["answer"] + ["prefix:0.5"] * 2 + [
        "solution"
    ] * 2
    record = store.record()
    assert record.by_source == {
        "answer": counts(1, 0, 0),
        "prefix:0.5": counts(2, 0, 0),
        "solution": counts(2, 2, 2),
    }
    assert (record.rollouts, record.solved_privileged, record.kept) == (5, 2, 2)
    assert sources_of(store) == {"uid-1_6_0": "solution", "uid-1_7_0": "solution"}


@pytest.mark.parametrize(("first", "made"), [("answer", 1), ("prefix:0.5", 3)])
def test_a_rung_that_solves_is_the_last(chat_model, monkeypatch, first: str, made: int) -> None:
    solves = solves_with(first, "solution")
    store, model, _ = run_prompt(chat_model, monkeypatch, solves, *LADDER, **TEXTS)
    assert len(model.prompts) == 3 + made and set(sources_of(store).values()) == {first}
    assert "solution" not in store.record().by_source


def test_one_solved_rollout_of_a_rung_is_enough(chat_model, monkeypatch) -> None:
    tried = iter([WRONG, RIGHT])
    answer = lambda prompt: next(tried) if shown(prompt) == "prefix:0.5" else WRONG  # noqa: E731
    store, model, _ = run_prompt(chat_model, monkeypatch, answer, *LADDER, **TEXTS)
    assert store.record().by_source["prefix:0.5"] == counts(2, 1, 1) and len(model.prompts) == 6


def test_a_row_without_the_text_of_a_rung_skips_it_and_its_rollouts_are_counted(chat_model, monkeypatch) -> None:
    ladder = ("hdpo.privileged.source=[prefix:0.5,solution,answer]", "hdpo.privileged.n=5")
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_with("answer"), *ladder, solution=None)
    record = store.record()
    assert (record.no_solution, record.rollouts, record.kept) == (3, 2, 2)
    assert record.by_source == {"answer": counts(2, 2, 2)} and len(model.prompts) == 5


def test_what_solved_a_cliff_but_was_cut_off_is_not_kept_so_the_next_rung_is_tried(chat_model, monkeypatch) -> None:
    long = "right " * 40
    answer = lambda prompt: {"answer": long, "solution": RIGHT}.get(shown(prompt) or "", WRONG)  # noqa: E731
    ladder = ("hdpo.privileged.source=[answer,solution]",)
    ids = "data.max_response_length=8"
    texts = {**TEXTS, "scores": {RIGHT: 1.0}}
    store, model, _ = run_prompt(chat_model, monkeypatch, answer, *ladder, ids, **texts)
    cut = model.tokenizer.decode(model.tokenizer(long).input_ids[:8])
    texts["scores"] = {RIGHT: 1.0, cut: 1.0}
    store, model, _ = run_prompt(chat_model, monkeypatch, answer, *ladder, ids, **texts)
    record = store.record()
    assert record.by_source == {"answer": counts(1, 1, 0), "solution": counts(1, 1, 1)}
    assert (record.skipped_truncated, record.kept) == (1, 1)


def test_an_error_or_a_prompt_that_is_too_long_costs_its_rung_only(chat_model, monkeypatch) -> None:
    def answer(prompt: str) -> str:
        if shown(prompt) == "answer":
            raise RuntimeError("engine trouble")
        return RIGHT if shown(prompt) == "solution" else WRONG

    ladder = ("hdpo.privileged.source=[answer,solution]", "hdpo.privileged.n=2")
    store, *_ = run_prompt(chat_model, monkeypatch, answer, *ladder, **TEXTS)
    assert (store.record().errors, store.record().kept) == (1, 1)
    long = {"solution": "LAST PART " * 60}
    store, *_ = run_prompt(chat_model, monkeypatch, solves_with("answer"), *reversed_rungs(ladder), **long)
    assert (store.record().too_long, store.record().kept) == (1, 1)


def reversed_rungs(ladder: tuple[str, str]) -> tuple[str, str]:
    return ladder[0].replace("[answer,solution]", "[solution,answer]"), ladder[1]


def test_seeds_differ_on_all_rungs(chat_model, monkeypatch) -> None:
    _, model, _ = run_prompt(chat_model, monkeypatch, solves_with(), *LADDER, "hdpo.rollout_seed=3", **TEXTS)
    assert len(set(model.seeds)) == len(model.seeds) == 8


def test_the_other_schedules_climb_the_same_ladder(chat_model, monkeypatch) -> None:
    same, *_ = run_prompt(chat_model, monkeypatch, solves_with("solution"), *LADDER, **TEXTS)
    late, *_ = run_prompt(chat_model, monkeypatch, solves_with("solution"), *LADDER, NEXT, reissued=True, **TEXTS)
    after, *_ = run_prompt(chat_model, monkeypatch, solves_with("solution"), *LADDER, ASYNC, **TEXTS)
    assert same.record().by_source == late.record().by_source == record_of(after, follower(after)).by_source
    for store in (late, after):
        assert sorted(sources_of(store).values()) == ["solution"] * 2
        for ours, theirs in zip(store.kept(), same.kept(), strict=True):
            for name in transfer.FIELDS:
                assert store.fields[ours][name].tolist() == same.fields[theirs][name].tolist()


def test_hints_on_a_ladder_replace_failures_by_number(chat_model, monkeypatch) -> None:
    ladder = ("hdpo.privileged.source=[answer,solution]", "hdpo.privileged.n=2", "hdpo.privileged.use=replace")
    store, model, _ = run_prompt(chat_model, monkeypatch, solves_with("solution"), *ladder, **TEXTS)
    prompts = {key: shown(model.tokenizer.decode(row["prompts"])) for key, row in store.fields.items()}
    assert prompts == {"uid-1_0_0": None, "uid-1_1_0": "solution", "uid-1_2_0": None}
