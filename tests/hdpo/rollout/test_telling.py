"""What a cliff's record tells people of its privileged rollouts, kept or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.hdpo.rollout.telling import FAILED, Telling
from tests.hdpo.rollout.one_prompt import RIGHT, WRONG, run_prompt

TOLD = "trainer.rollout_data_dir=/nowhere"


def second_fails() -> tuple[list[str], object]:
    """Plain rollouts fail; of the privileged ones the first is right."""
    asked: list[str] = []

    def answer(prompt: str) -> str:
        if "SOLUTION" not in prompt:
            return WRONG
        asked.append(prompt)
        return RIGHT if len(asked) == 1 else WRONG

    return asked, answer


def test_every_scored_privileged_rollout_is_told_with_its_reward_and_why_it_was_not_kept(
    chat_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, answer = second_fails()
    store, _, _ = run_prompt(chat_model, monkeypatch, answer, TOLD)
    record = store.record()
    assert (record.uid, record.successes, record.kept, len(record.told)) == ("uid-1", 0, 1, 2)
    told = {each["kept"]: each for each in record.told}
    assert [told[True]["key"]] == store.kept() and told[True]["reason_not_kept"] == "" and "text" not in told[True]
    assert told[False]["reason_not_kept"] == FAILED and told[False]["text"] == WRONG and told[False]["reward"] == 0.0


def test_the_privileged_part_of_the_prompt_is_told_from_its_begin_to_its_end(
    chat_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = second_fails()
    store, model, _ = run_prompt(chat_model, monkeypatch, answer, TOLD)
    told = store.record().privileged
    assert "".join(text for _, text in told["prompt"]) == asked[0]
    assert [text for kind, text in told["prompt"] if kind == "shown"] == ["SOLUTION"]
    assert told["source"] == "solution" and told["plain_prompt"] == model.prompts[0]
    # The problem alone, without the words of the chat template.
    assert told["asked"] == "PROBLEM" and told["plain_prompt"] not in ("", "PROBLEM")
    assert model.tokenizer.decode(told["shown_ids"]) == "SOLUTION"


@pytest.mark.parametrize(
    ("messages", "asked"),
    [
        (
            [
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "1"},
                {"role": "user", "content": "two"},
            ],
            "two",
        ),
        ([{"role": "system", "content": "alone"}], ""),
        ([{"role": "user", "content": [{"type": "text", "text": "a part"}]}], ""),
        ([], ""),
    ],
)
def test_the_problem_is_the_last_text_of_the_user_and_none_is_no_error(messages: list[dict], asked: str) -> None:
    assert Telling(tokenizer=None).shown("problem", "", messages)["asked"] == asked


def test_nothing_is_told_where_no_texts_are_written(chat_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _, _ = run_prompt(chat_model, monkeypatch, second_fails()[1])
    record = store.record()
    assert record.kept == 1 and record.told == [] and record.privileged == {}


def test_a_reissued_cliff_names_the_group_that_failed(chat_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _, _ = run_prompt(
        chat_model, monkeypatch, second_fails()[1], TOLD, reissued=True, row={"hdpo_cliff_uid": "uid-0"}
    )
    record = store.record()
    assert (record.uid, record.cliff_uid, record.reissued, len(record.told)) == ("uid-1", "uid-0", True, 2)
