"""Signs of copying in the rollout hook: what is read of kept and of plain correct rollouts, and what the gate drops."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.algorithm.gate import Signs
from recipe.hdpo.step_process import StepProcess
from tests.hdpo.rollout.one_prompt import WRONG, run_prompt

ARITHMETIC = "hdpo.privileged.step_check=recipe.hdpo.step_check.arithmetic"
# A worked solution, and right responses of each kind.
SOLUTION = "SOLUTION 3+4=7, 7+5=12"
KINDS = {
    "copies": "3+4=7, 7+5=12",
    "speaks": "as the solution says 12",
    "bare": "12",
    "false steps": "5+3=9 so 12 it is",
    "solves": "5+3=8 8+4=12",
}
SCORES = dict.fromkeys(KINDS.values(), 1.0)


def record_of(chat_model, monkeypatch, kind: str, *overrides: str) -> tuple[GroupRecord, list[str]]:
    """A cliff that is solved by responses of a kind, and the keys of what is kept."""

    def answer(prompt: str) -> str:
        return KINDS[kind] if "SOLUTION" in prompt else WRONG

    store, *_ = run_prompt(chat_model, monkeypatch, answer, *overrides, solution=SOLUTION, scores=SCORES)
    return store.record(), store.kept()


def test_by_default_nothing_is_dropped_and_the_signs_of_what_is_kept_are_told_by_key(chat_model, monkeypatch) -> None:
    record, kept = record_of(chat_model, monkeypatch, "copies")
    assert kept == ["uid-1_3_0", "uid-1_4_0"] == sorted(record.kept_signs) and record.dropped == {}
    # A token is a byte here: of "SOLUTION 3+4=7, 7+5=12" the response is the end.
    assert record.kept_signs[kept[0]] == {
        "speaks": False, "run": 13, "run_share": 1.0, "length_share": 13 / 22, "steps": None, "step_check": "off",
    }  # fmt: skip
    bare, _ = record_of(chat_model, monkeypatch, "bare")
    assert bare.kept_signs["uid-1_3_0"]["length_share"] == 2 / 22 and bare.kept_signs["uid-1_3_0"]["run"] == 2


@pytest.mark.parametrize(
    ("gate", "dropped_kinds", "reason"),
    [
        ("speaks=true", {"speaks"}, "speaks"),
        ("run_share=0.9", {"copies", "bare"}, "run_share"),
        ("length_share=0.3", {"bare"}, "length_share"),
        ("steps=0.5", {"speaks", "bare", "false steps"}, "steps"),
    ],
)
def test_each_gate_drops_its_kinds_counts_them_and_keeps_the_others(
    chat_model, monkeypatch, gate: str, dropped_kinds: set[str], reason: str
) -> None:
    for kind in KINDS:
        checks = [ARITHMETIC] if reason == "steps" else []
        record, kept = record_of(chat_model, monkeypatch, kind, f"hdpo.privileged.gate.{gate}", *checks)
        is_dropped = kind in dropped_kinds
        assert record.dropped == ({reason: 2} if is_dropped else {}), kind
        assert (record.solved_privileged, record.kept) == (2, 0 if is_dropped else 2), kind
        assert len(kept) == len(record.kept_signs) == record.kept


def test_a_response_without_steps_stays_where_it_counts_as_one_of_valid_steps(chat_model, monkeypatch) -> None:
    gate = ("hdpo.privileged.gate.steps=0.5", "hdpo.privileged.gate.no_steps=1")
    record, _ = record_of(chat_model, monkeypatch, "bare", ARITHMETIC, *gate)
    assert (record.kept, record.dropped) == (2, {})


def test_phrases_of_the_users_come_on_top(chat_model, monkeypatch, tmp_path: Path) -> None:
    file = tmp_path / "phrases.txt"
    file.write_text("12 it is\n")
    gate = "hdpo.privileged.gate.speaks=true"
    assert record_of(chat_model, monkeypatch, "false steps", gate)[0].dropped == {}
    more = f"hdpo.privileged.phrases={file}"
    assert record_of(chat_model, monkeypatch, "false steps", gate, more)[0].dropped == {"speaks": 2}


def test_plain_correct_rollouts_are_compared_with_what_would_have_been_shown(chat_model, monkeypatch) -> None:
    answers = iter([KINDS["copies"], WRONG, KINDS["solves"]])
    store, model, _ = run_prompt(
        chat_model, monkeypatch, lambda _: next(answers), ARITHMETIC, solution=SOLUTION, scores=SCORES
    )
    record = store.record()
    assert len(model.prompts) == 3 and not record.cliff
    found = {signs["run_share"]: signs["steps"] for signs in record.plain_signs}
    assert len(record.plain_signs) == 2 and found[1.0] == 1.0 and set(found.values()) == {1.0}
    answer = "hdpo.privileged.source=answer"
    answers = iter([KINDS["copies"], WRONG, KINDS["solves"]])
    store, *_ = run_prompt(chat_model, monkeypatch, lambda _: next(answers), answer, solution=SOLUTION, scores=SCORES)
    # Of "ANSWER" none has a byte.
    assert [signs["run"] for signs in store.record().plain_signs] == [0, 0]


def test_without_a_worked_solution_the_length_is_unknown_which_its_gate_drops(chat_model, monkeypatch) -> None:
    def answer(prompt: str) -> str:
        return "12" if "ANSWER" in prompt else WRONG

    for gate, dropped in ((), {}), (("hdpo.privileged.gate.length_share=0.3",), {"length_unknown": 2}):
        store, *_ = run_prompt(
            chat_model, monkeypatch, answer, "hdpo.privileged.source=answer", *gate, solution=None, scores=SCORES
        )
        assert store.record().dropped == dropped


def test_where_nothing_is_shown_there_is_no_run(chat_model, monkeypatch) -> None:
    answers = iter([WRONG] * 3 + ["12"] * 2)
    control = ["hdpo.privileged.source=problem", "hdpo.privileged.use=replace"]
    store, *_ = run_prompt(chat_model, monkeypatch, lambda _: next(answers), *control, solution=SOLUTION, scores=SCORES)
    assert [signs["run"] for signs in store.record().kept_signs.values()] == [None, None]


def test_a_step_check_that_fails_or_hangs_is_counted_and_stops_nothing(
    chat_model, monkeypatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "checks.py"
    file.write_text(
        "import os\ndef fails(text):\n    raise KeyError(text)\ndef dies(text):\n    os._exit(3)\n"
        "def hangs(text):\n    while text:\n        pass\n"
    )
    record, kept = record_of(chat_model, monkeypatch, "solves", f"hdpo.privileged.step_check={file}:fails")
    assert (len(kept), record.step_check_errors, record.dropped) == (2, 2, {}) and "KeyError" in caplog.text
    gate = "hdpo.privileged.gate.steps=0.5"
    record, kept = record_of(chat_model, monkeypatch, "solves", f"hdpo.privileged.step_check={file}:fails", gate)
    assert (kept, record.step_check_errors, record.dropped) == ([], 2, {"step_check_error": 2})

    async def after(name: str) -> list[str]:
        check = StepProcess(f"{file}:{name}", seconds=0.2)
        try:
            return [(await check.added_to(Signs(False, 0, 0.0, 1.0), text)).step_check for text in ("x", "")]
        finally:
            check.stop()

    # The next call has a process of its own.
    assert asyncio.run(after("hangs")) == ["failed", "done"]
    assert asyncio.run(after("dies")) == ["failed", "failed"]


def test_a_kept_row_that_is_too_old_takes_its_signs_along() -> None:
    from recipe.hdpo.training.arrivals import Arrivals

    record = GroupRecord("p", cliff=False, solved=False, kept=2, kept_tokens=2)
    record.kept_signs = {"u_8_0": {"speaks": True}, "u_9_0": {"speaks": False}}
    items = {
        "u": {"is_prompt": True, "status": "finished"},
        "u_hdpo_0": transfer.record_tag(record),
        **{f"u_{i}_0": transfer.privileged_tag([1], [1, 2], [3], None, weights) for i, weights in ((8, 1), (9, 4))},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipe.hdpo.training.arrivals.tq.kv_list", lambda partition: {partition: items})
        patch.setattr("recipe.hdpo.training.arrivals.tq.kv_clear", lambda **_: None)
        kept, records = Arrivals(max_staleness=1).take(step=5)
    [found] = records.values()
    assert kept.keys == ["u_9_0"] == list(found.kept_signs) and found.kept == 1
