"""What one step of the trainer hands on: kept rows to the update, metrics to the logger, text to the log.

verl's own step methods and TransferQueue are stand-ins that record what they are given; the end-to-end test runs the
same overrides on the real ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.algorithm.privileged_prompt import prompt_id
from recipe.hdpo.config.checks import check_config
from recipe.hdpo.tracking.group_lines import GROUP_FOLDER
from recipe.hdpo.tracking.kept_notes import KeptNotes
from recipe.hdpo.tracking.kept_text import PIECES, kept_files
from recipe.hdpo.tracking.run_history import History
from recipe.hdpo.tracking.teacher_collapse import CollapseMonitor
from recipe.hdpo.training import kept_lines, mini_batch
from recipe.hdpo.training import trainer as trainer_module
from recipe.hdpo.training.reinjection import Reinjection
from recipe.hdpo.training.token_record import WIDTH
from recipe.hdpo.training.trainer_sync import HDPOTrainerSync
from recipe.hdpo.training.waiting_cliffs import CLIFFS_FILE, WaitingCliffs
from tests.hdpo.composed_config import composed
from tests.hdpo.training.test_waiting_cliffs import prompts, records, solutions

# key -> student prompt, teacher prompt, response
STORED = {"b_8_0": ([1], [2, 3], [4, 5]), "a_8_0": ([6, 7], [8], [9])}
# Of the first one's response the first token is a tool's.
MASKS = {"b_8_0": [0, 1], "a_8_0": [1]}


class Queue:
    """TransferQueue's two calls of the trainer, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, list[str]]] = []

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, torch.Tensor]:
        self.events.append(("get", keys))
        found = [transfer.privileged_fields(*STORED[key], MASKS[key]) for key in keys]
        return {name: mini_batch.nested([row[name].unbind()[0] for row in found]) for name in select_fields}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        self.events.append(("clear", keys))


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    monkeypatch.setattr(trainer_module, "tq", queue)
    monkeypatch.setattr(kept_lines, "tq", queue)
    return queue


def make_trainer(step: int, *overrides: str, kept: dict[str, Any] = STORED) -> HDPOTrainerSync:
    trainer = HDPOTrainerSync.__new__(HDPOTrainerSync)
    config = composed(*overrides)
    tags = [transfer.privileged_tag(*row, source=f"of {key}") for key, row in kept.items()]
    trainer.config, trainer.hdpo, trainer.global_steps = config, check_config(config), step
    trainer.kept = KVBatchMeta(list(kept), tags, "train")
    trainer.records, trainer.kept_lines, trainer.recorded = [], [], ()
    trainer.notes = KeptNotes(trainer.hdpo.privileged.gate.reliance)
    trainer.local_trigger_step, trainer.parameter_sync_step = 0, 1
    trainer.history, trainer.total_training_steps = History(teacher=CollapseMonitor(0.0)), 100
    trainer.reissued, trainer.waiting = 0, WaitingCliffs()
    trainer.tokenizer = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids.tolist())))
    return trainer


def handed_on(monkeypatch: pytest.MonkeyPatch, step: int, *overrides: str, **options: Any) -> dict[str, Any]:
    """The extra info of the batch that verl's actor update is given."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(PPOTrainer, "_update_actor", lambda self, batch, metrics: seen.update(batch.extra_info))
    make_trainer(step, *overrides, **options)._update_actor(KVBatchMeta(["a_0_0"], [{}], "train", extra_info={}), {})
    return seen


def test_every_kept_row_is_handed_on_by_its_key_with_its_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = transfer.KeptRows(keys=["b_8_0", "a_8_0"], tokens=[1 + 2 + 2 * 2, 2 + 1 + 2 * 1])
    assert handed_on(monkeypatch, 1) == {transfer.KEPT: expected}


def test_nothing_is_handed_on_where_nothing_was_kept_or_lambda_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert handed_on(monkeypatch, 1, "hdpo.gradient_ratio_interval=1", kept={}) == {}
    assert handed_on(monkeypatch, 1, "hdpo.gradient_ratio_interval=1", "hdpo.distillation_loss_coef=0") == {}


@pytest.mark.parametrize(("interval", "steps"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4])])
def test_gradient_norms_are_measured_every_so_many_steps(
    monkeypatch: pytest.MonkeyPatch, interval: int, steps: list[int]
) -> None:
    override = f"hdpo.gradient_ratio_interval={interval}"
    measured = [s for s in range(1, 6) if handed_on(monkeypatch, s, override)[transfer.KEPT].measure_gradients]
    assert measured == steps


@pytest.mark.parametrize(("schedule", "expected"), [("constant", 1.0), ("linear", 0.75), ("cosine", 0.853553391)])
def test_lambda_follows_its_schedule_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, schedule: str, expected: float
) -> None:
    monkeypatch.setattr(PPOTrainer, "_update_actor", lambda self, batch, metrics: batch)
    trainer = make_trainer(2, f"hdpo.distillation_loss_schedule={schedule}", "hdpo.distillation_loss_coef=0.5")
    trainer.total_training_steps, metrics = 4, {}
    batch = trainer._update_actor(KVBatchMeta(["a_0_0"], [{}], "train", extra_info={}), metrics)
    assert batch.extra_info[transfer.KEPT].factor == pytest.approx(expected)
    assert metrics["hdpo/distillation_loss_coef"] == pytest.approx(0.5 * expected)


def test_metrics_of_the_recipe_lose_the_prefix_of_the_actor_and_verls_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"actor/hdpo/jsd_mean": 0.1, "actor/pg_loss": 0.2}
    monkeypatch.setattr(PPOTrainer, "_update_actor", lambda self, batch, metrics: metrics.update(made))
    metrics: dict[str, float] = {}
    make_trainer(1)._update_actor(KVBatchMeta(["a_0_0"], [{}], "train", extra_info={}), metrics)
    assert metrics == {"hdpo/jsd_mean": 0.1, "actor/pg_loss": 0.2, "hdpo/distillation_loss_coef": 0.1}


def test_kept_rows_are_written_as_text_by_key_and_then_cleared(
    monkeypatch: pytest.MonkeyPatch, queue: Queue, tmp_path: Path
) -> None:
    monkeypatch.setattr(PPOTrainer, "_step_once", lambda self, metrics, timing, size: "verl's batch")
    trainer = make_trainer(7, f"trainer.rollout_data_dir={tmp_path}")
    assert trainer._step_once({}, {}, 1) == "verl's batch"
    assert queue.events == [("get", list(STORED)), ("clear", list(STORED))] and trainer.kept is None
    [file] = kept_files(tmp_path)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    names = (transfer.STUDENT_PROMPT, transfer.TEACHER_PROMPT, transfer.RESPONSE)
    found = {line["key"]: tuple([*map(int, line[name].split())] for name in names) for line in lines}
    assert found == STORED and all(line["step"] == 7 for line in lines)
    assert all(line[transfer.SOURCE] == f"of {line['key']}" for line in lines)
    pieces = {line["key"]: line.get(PIECES) for line in lines}
    assert pieces == {"b_8_0": [{"distilled": False, "text": "4"}, {"distilled": True, "text": "5"}], "a_8_0": None}


def test_the_kept_text_of_an_attempt_that_a_resume_discarded_does_not_stay(
    monkeypatch: pytest.MonkeyPatch, queue: Queue, tmp_path: Path
) -> None:
    monkeypatch.setattr(PPOTrainer, "_step_once", lambda self, metrics, timing, size: None)
    trainer = make_trainer(7, f"trainer.rollout_data_dir={tmp_path}")
    trainer._step_once({}, {}, 1)
    assert len(kept_files(tmp_path)) == 1
    # The step once more, and now nothing is kept.
    trainer._step_once({}, {}, 1)
    assert kept_files(tmp_path) == []


@pytest.mark.parametrize(("least", "dropped"), [("null", None), ("-0.4", "reliance")])
def test_signs_and_reliance_of_kept_rows_reach_metrics_and_text_by_key(
    monkeypatch: pytest.MonkeyPatch, queue: Queue, tmp_path: Path, least: str, dropped: str | None
) -> None:
    signs = {"a_8_0": {"speaks": True}, "b_8_0": {"speaks": False}}
    record = GroupRecord("p", cliff=True, solved=False, kept=2, kept_signs=signs)
    found = {"actor/hdpo_reliance_by_key": {"b_8_0": -0.5, "a_8_0": -0.1}}
    monkeypatch.setattr(PPOTrainer, "_update_actor", lambda self, batch, metrics: metrics.update(found))
    metrics: dict[str, float] = {}

    def step(self: Any, *_: Any) -> None:
        self.notes.see([record])
        self._update_actor(KVBatchMeta(["a_0_0"], [{}], "train", extra_info={}), metrics)
        self.recorded = ()

    monkeypatch.setattr(PPOTrainer, "_step_once", step)
    trainer = make_trainer(7, f"trainer.rollout_data_dir={tmp_path}", f"hdpo.privileged.gate.reliance={least}")
    trainer._step_once({}, {}, 1)
    assert (metrics["hdpo/reliance_mean"], metrics["hdpo/reliance_min"]) == (pytest.approx(-0.3), -0.5)
    assert metrics.get("hdpo/dropped_reliance") == (None if dropped is None else 1)
    lines = [json.loads(line) for line in kept_files(tmp_path)[0].read_text().splitlines()]
    told = {line["key"]: (line["hdpo_signs"], line["hdpo_reliance"], line["hdpo_dropped"]) for line in lines}
    assert told == {"b_8_0": (signs["b_8_0"], -0.5, dropped), "a_8_0": (signs["a_8_0"], -0.1, None)}
    assert trainer.notes.reliance == {} == trainer.notes.signs


def test_kept_rows_are_cleared_where_nobody_wants_their_text(monkeypatch: pytest.MonkeyPatch, queue: Queue) -> None:
    monkeypatch.setattr(PPOTrainer, "_step_once", lambda self, metrics, timing, size: None)
    make_trainer(7)._step_once({}, {}, 1)
    assert queue.events == [("clear", list(STORED))]


def test_tokens_are_recorded_where_texts_are_written_and_come_back_by_key(
    monkeypatch: pytest.MonkeyPatch, queue: Queue, tmp_path: Path
) -> None:
    """The record of a row is n times its first response token; the queue hands out what is asked for by key."""
    folder = f"trainer.rollout_data_dir={tmp_path}"
    assert handed_on(monkeypatch, 1, folder)[transfer.KEPT].recorded == ("b_8_0", "a_8_0")
    records = {key: torch.full((sum(MASKS[key]) * WIDTH,), float(row[2][0])) for key, row in STORED.items()}
    plain = queue.kv_batch_get

    def get(keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, torch.Tensor]:
        if select_fields == [transfer.TOKEN_RECORD]:
            return {transfer.TOKEN_RECORD: mini_batch.nested([records[key] for key in keys])}
        return plain(keys, partition_id, select_fields)

    monkeypatch.setattr(queue, "kv_batch_get", get)
    trainer = make_trainer(7, folder)
    trainer.tokenizer = SimpleNamespace(decode=lambda ids: " ".join(map(str, [*ids])))
    lines = {line["key"]: line for line in kept_lines.text_lines(trainer.tokenizer, trainer.kept, ["a_8_0"])}
    assert lines["a_8_0"][kept_lines.TOKENS]["divergence"] == [9.0] and kept_lines.TOKENS not in lines["b_8_0"]
    lines = {line["key"]: line for line in kept_lines.text_lines(trainer.tokenizer, trainer.kept, [*STORED])}
    told = lines["b_8_0"][kept_lines.TOKENS]
    assert (told["ids"], told["at"], told["divergence"]) == ([4, 5], [1], [4.0])


def test_what_became_of_every_prompt_is_written_at_the_end_of_the_step(
    monkeypatch: pytest.MonkeyPatch, queue: Queue, tmp_path: Path
) -> None:
    monkeypatch.setattr(PPOTrainer, "_balance_batch", lambda self, batch, metrics, **_: batch)
    trainer = make_trainer(3, f"trainer.rollout_data_dir={tmp_path}")
    found = records("b", "ac")
    for key, record in found.items():
        record.uid = key.split("_")[0]
    tags = [transfer.record_tag(record) for record in found.values()]
    trainer._balance_batch(KVBatchMeta([*found, "x_0_0"], [*tags, {}], "train"), {})
    lines = [json.loads(text) for text in (tmp_path / GROUP_FOLDER / "3.jsonl").read_text().splitlines()]
    assert {line["uid"]: line["cliff"] for line in lines} == {
        uid: record.cliff for uid, record in zip([line["uid"] for line in lines], found.values(), strict=True)
    }
    assert [line["step"] for line in lines] == [3, 3, 3]
    assert [("attempts" in line) for line in lines] == [line["cliff"] for line in lines]


def test_validation_counts_as_solved_what_the_success_reward_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from recipe.hdpo.rollout.greedy_validation import GREEDY_SCORE

    monkeypatch.setattr(PPOTrainer, "_val_metrics_update", lambda self, *_, **__: {"val-core/s": 0.25})
    samples = {"reward": [0.5, 0.0], GREEDY_SCORE: [0.5, 0.5]}
    found = make_trainer(1, "hdpo.success_reward=0.5")._val_metrics_update(
        ["s", "s"], ["u", "u"], samples, [1, 1], expected_acc_counts={("s", "u"): 2}
    )
    expected = {"val-core/s": 0.25, "val-hdpo/s/greedy": 1.0, "val-hdpo/s/pass@1": 0.5, "val-hdpo/s/pass@2": 1.0}
    assert found == expected


def test_cliffs_rest_and_come_back_through_the_trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trainer = make_trainer(1, "hdpo.reinjection_delay=1", "hdpo.reinjection_share=0.5", kept={})
    trainer.reinjection, trainer.train_dataset = Reinjection(1, 0.5), range(8)
    trainer.config.data.train_batch_size = 4
    batches = iter(("abcd", "efgh", "abcd"))
    monkeypatch.setattr(PPOTrainer, "_fetch_one_gen_batch", lambda self: prompts(*next(batches)))
    first = trainer._next_train_batch()
    assert first["global_steps"] == 1 and solutions(first) == [f"solution {letter}" for letter in "abcd"]
    problem = prompt_id([{"role": "user", "content": "problem b"}], "")
    trainer.records = [GroupRecord(problem, cliff=True, solved=False, rollouts=1, kept=1)]
    assert trainer._step_metrics()["hdpo/resting_cliffs"] == 1
    trainer._save_beside(str(tmp_path))
    trainer.reinjection = Reinjection(1, 0.5)
    trainer._load_beside(str(tmp_path))
    trainer.global_steps = 2
    assert solutions(trainer._next_train_batch()) == [f"solution {letter}" for letter in "befg"]


@pytest.mark.parametrize(
    ("override", "reissued"),
    [("hdpo.privileged.n=2", 2), ("hdpo.privileged.n=0", 0), ("hdpo.privileged.use=replace", 0)],
)
def test_a_same_step_run_re_issues_once_what_a_next_step_run_left_waiting_or_says_that_it_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, override: str, reissued: int
) -> None:
    before = WaitingCliffs(asked=[prompts(*"abcd")])
    before.remember(records("bd", "ac"))
    before.save(str(tmp_path))
    sent: list[Any] = []
    monkeypatch.setattr(PPOTrainer, "prepare_step", lambda self: self._submit_batch_to_rollout(prompts(*"efgh")) and {})
    monkeypatch.setattr(PPOTrainer, "_submit_batch_to_rollout", lambda self, batch: sent.append(batch) or len(batch))
    trainer = make_trainer(7, "hdpo.privileged.schedule=same_step", override, kept={})
    trainer.train_dataset = range(4)
    trainer._load_beside(str(tmp_path))
    assert ("the 2 cliffs that wait" in caplog.text) == (reissued == 0)
    for expected in (reissued, 0):
        trainer.prepare_step()
        assert trainer.reissued == expected
    assert [len(batch) for batch in sent] == ([4, 2, 4] if reissued else [4, 4])
    trainer._save_beside(str(tmp_path / "next"))
    assert not (tmp_path / "next" / CLIFFS_FILE).exists()


def test_no_cliff_waits_where_privileged_rollouts_are_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PPOTrainer, "_submit_batch_to_rollout", lambda self, batch: len(batch))
    trainer = make_trainer(7, "hdpo.privileged.schedule=next_step", "hdpo.privileged.n=0", kept={})
    trainer._submit_batch_to_rollout(prompts(*"abcd"))
    assert trainer.waiting.asked == [] and "hdpo/waiting_cliffs" not in trainer._step_metrics()


@pytest.mark.parametrize(("schedule", "expected"), [("next_step", (1, 5)), ("same_step", (0, 4))])
def test_the_last_steps_cliffs_go_out_after_this_steps_prompts_and_the_step_waits_for_both(
    monkeypatch: pytest.MonkeyPatch, schedule: str, expected: tuple[int, int]
) -> None:
    sent, waited_for = [], []
    monkeypatch.setattr(PPOTrainer, "prepare_step", lambda self: self._submit_batch_to_rollout(prompts(*"efgh")) and {})
    monkeypatch.setattr(PPOTrainer, "_submit_batch_to_rollout", lambda self, batch: sent.append(batch) or len(batch))
    monkeypatch.setattr(PPOTrainer, "_step_once", lambda self, metrics, timing, size: waited_for.append(size))
    trainer = make_trainer(7, f"hdpo.privileged.schedule={schedule}", kept={})
    if schedule == "next_step":
        trainer.waiting.asked = [prompts(*"abcd")]
        trainer.waiting.remember(records("b", "acd"))
    trainer.prepare_step()
    trainer._step_once({}, {}, 4)
    assert (trainer.reissued, *waited_for) == expected
    assert [len(batch) for batch in sent] == [4, 1][: 1 + expected[0]]
    if expected[0]:
        assert sent[1]["extra_info"][0] == {"solution": "solution b"} and sent[1]["global_steps"] == 7
        trainer.waiting.remember(records("h", "efg"))
        assert len(trainer.waiting) == 1
