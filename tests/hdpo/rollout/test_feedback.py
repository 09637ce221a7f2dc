"""``hdpo.privileged.source=feedback``: a cliff is shown a failed attempt of its own and what the reward said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.feedback import Attempt, to_json
from tests.hdpo.rollout.one_prompt import RIGHT, Model, Store, run_prompt
from tests.hdpo.rollout.test_following_cliffs import ASYNC, follower, record_of
from tests.hdpo.rollout.test_next_step import NEXT

FEEDBACK = ("hdpo.privileged.source=feedback", "data.max_response_length=32")
# What the reward function says of each plain rollout: of the first one nothing.
SCORES: dict[str, Any] = {
    RIGHT: 1.0,
    "try a": {"score": 0.0, "feedback": " "},
    "try b": {"score": 0.0, "feedback": "SAID B"},
    "try c": {"score": 0.0, "feedback": "SAID C"},
}


def mends(*said: str) -> Callable[[str], str]:
    """Three failures; right where one of these is shown."""
    tries: Iterator[str] = iter(["try a", "try b", "try c"])

    def answer(prompt: str) -> str:
        if "SAID" not in prompt:
            return next(tries, "try a")
        return RIGHT if any(text in prompt for text in said) else "no"

    return answer


def run(chat_model, monkeypatch, answer, *overrides: str, **options: Any) -> tuple[Store, Model, list[dict]]:
    settings: dict[str, Any] = {"solution": None, "scores": SCORES, **options}
    return run_prompt(chat_model, monkeypatch, answer, *FEEDBACK, *overrides, **settings)


def test_the_jth_privileged_rollout_is_shown_the_jth_attempt_with_feedback(chat_model, monkeypatch) -> None:
    store, model, scored = run(chat_model, monkeypatch, mends("SAID C"), "hdpo.privileged.n=3")
    # Rollouts that run at once come in any order.
    texts = [model.tokenizer.decode(store.fields[f"uid-1_{i}_0"]["responses"]) for i in range(3)]
    order = [text[4].upper() for text in texts if "try a" not in text]
    assert sorted(order) == ["B", "C"]
    shown = model.prompts[3:]
    counted = {letter: sum(f"try {letter.lower()}" in p and f"SAID {letter}" in p for p in shown) for letter in order}
    assert counted == {order[0]: 2, order[1]: 1}
    assert all("PROBLEM" in prompt and "try a" not in prompt for prompt in shown)
    record, kept = store.record(), [f"uid-1_{3 + j}_0" for j in range(3) if order[j % 2] == "C"]
    assert (record.rollouts, record.kept, record.no_solution, record.no_feedback) == (3, len(kept), 0, 0)
    assert sorted(store.kept()) == kept and record.attempts == ""
    for key in kept:
        row = store.fields[key]
        assert "SAID C" in model.tokenizer.decode(row[transfer.TEACHER_PROMPT])
        assert "SAID" not in model.tokenizer.decode(row[transfer.STUDENT_PROMPT])
    assert all("SAID" not in call["prompt"] for call in scored)


def test_a_cliff_without_any_feedback_is_skipped_and_counted(chat_model, monkeypatch) -> None:
    silent = {"try b": {"score": 0.0}, "try c": 0.0, "try a": {"score": 0.0, "feedback": None}}
    store, model, _ = run(chat_model, monkeypatch, mends("SAID"), scores=silent)
    assert store.record().cliff and (store.record().no_feedback, store.record().rollouts) == (2, 0)
    assert len(model.prompts) == 3


def test_the_feedback_stands_where_the_key_says(chat_model, monkeypatch) -> None:
    nested = {"try a": {"score": 0.0, "feedback": "NO", "check": {"said": "SAID HERE"}}}
    store, model, _ = run(
        chat_model,
        monkeypatch,
        mends("SAID HERE"),
        "hdpo.privileged.feedback_key=check.said",
        scores={RIGHT: 1.0, **nested},
    )
    assert store.record().kept == 2 and all("SAID HERE" in p and "NO" not in p for p in model.prompts[3:])


def test_a_prompt_with_a_long_attempt_is_skipped_and_never_cut(chat_model, monkeypatch) -> None:
    long = {"try b": {"score": 0.0, "feedback": "SAID " * 200}, "try c": {"score": 0.0, "feedback": "SAID C"}}
    store, *_ = run(chat_model, monkeypatch, mends("SAID C"), scores={RIGHT: 1.0, **long})
    assert (store.record().too_long, store.record().kept) == (1, 1)


def test_the_template_is_the_users(chat_model, monkeypatch) -> None:
    template = "hdpo.privileged.feedback_template='T {{ feedback }} F {{ attempt }} P {{ problem }}'"
    _, model, _ = run(chat_model, monkeypatch, mends(), template)
    assert all("user\nT SAID B F try b P PROBLEM" in p or "T SAID C F try c P" in p for p in model.prompts[3:])


def test_feedback_is_a_rung_of_a_ladder_and_comes_before_the_solution(chat_model, monkeypatch) -> None:
    ladder = ("hdpo.privileged.source=[feedback,solution]", "hdpo.privileged.n=3")
    answer = mends("SAID C")
    solved = lambda prompt: RIGHT if "SOLUTION" in prompt else answer(prompt)  # noqa: E731
    store, *_ = run(chat_model, monkeypatch, solved, *ladder, solution="SOLUTION")
    # One rollout of feedback, which is B's, and two of the solution.
    assert store.record().by_source == {
        "feedback": {"rollouts": 1, "solved": 0, "kept": 0},
        "solution": {"rollouts": 2, "solved": 2, "kept": 2},
    }


def test_attempts_wait_for_the_next_step_with_their_cliff(chat_model, monkeypatch) -> None:
    first, model, _ = run(chat_model, monkeypatch, mends("SAID"), NEXT)
    attempts = to_json([Attempt("try b", "SAID B"), Attempt("try c", "SAID C")])
    assert first.record().attempts == attempts and len(model.prompts) == 3
    row = {transfer.ATTEMPTS: attempts}
    again, model, scored = run(chat_model, monkeypatch, mends("SAID"), NEXT, reissued=True, row=row)
    assert again.record().kept == 2 and ["SAID B" in p for p in model.prompts] == [True, False]
    assert all(transfer.ATTEMPTS not in call for call in scored)


def test_attempts_follow_their_cliff_under_an_asynchronous_trainer_and_after_a_resume(chat_model, monkeypatch) -> None:
    first, model, _ = run(chat_model, monkeypatch, mends("SAID"), ASYNC)
    assert record_of(first, follower(first)).kept == 2 and len(model.prompts) == 5
    stored = first.fields[follower(first)]
    row = {name: value.data if hasattr(value, "data") else value for name, value in stored.items()}
    again, model, _ = run(chat_model, monkeypatch, mends("SAID"), ASYNC, row=row)
    assert again.kept() == first.kept() and len(model.prompts) == 2


def test_nothing_of_the_reward_is_kept_where_no_source_shows_it(chat_model, monkeypatch) -> None:
    store, *_ = run_prompt(chat_model, monkeypatch, mends(), NEXT, scores=SCORES)
    assert store.record().attempts == "[]"
