"""Cliffs that wait for the next step: joined by uid, carried through checkpoints, re-issued once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.training.waiting_cliffs import CLIFFS_FILE, WaitingCliffs


def prompts(*uids: str) -> TensorDict:
    """Data rows as verl's trainer sends them to the rollout."""
    columns: dict[str, list[Any]] = {
        "uid": list(uids),
        "raw_prompt": [[{"role": "user", "content": f"problem {uid}"}] for uid in uids],
        "extra_info": [{"solution": f"solution {uid}"} for uid in uids],
    }
    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        arrays[name] = np.empty(len(values), dtype=object)
        arrays[name][:] = values
    batch = tu.get_tensordict({**arrays, "index": np.arange(len(uids))})
    tu.assign_non_tensor_data(batch, "global_steps", 4)
    return batch


def records(cliffs: str, others: str = "") -> dict[str, GroupRecord]:
    return {
        transfer.record_key(uid): GroupRecord(uid, cliff=uid in cliffs, solved=False, plain_prompt_ids=[ord(uid), 7])
        for uid in cliffs + others
    }


def solutions(batch: TensorDict) -> list[str]:
    return [row["solution"] for row in batch["extra_info"]]


def test_exactly_the_cliffs_wait_in_whatever_order_records_come_and_in_how_many_batches_they_were_asked_for() -> None:
    waiting = WaitingCliffs(asked=[prompts("a", "b", "c"), prompts("d")])
    waiting.remember(records("dca", "b"))
    rows = waiting.take(5)
    assert rows is not None and solutions(rows) == ["solution a", "solution c", "solution d"]
    assert [row[0]["content"] for row in rows["raw_prompt"]] == ["problem a", "problem c", "problem d"]
    assert list(rows[transfer.PLAIN_PROMPT_IDS]) == [[97, 7], [99, 7], [100, 7]]
    assert rows["global_steps"] == 5 and rows[transfer.REISSUED] is True
    assert len(set(rows["uid"])) == 3 and not {"a", "c", "d"} & set(rows["uid"])
    assert waiting.take(6) is None and waiting.asked == []


@pytest.mark.parametrize("cliffs", ["", "a", "ab"])
def test_none_one_and_all_prompts_may_be_cliffs(cliffs: str) -> None:
    waiting = WaitingCliffs(asked=[prompts("a", "b")])
    waiting.remember(records(cliffs, "ab".replace(cliffs, "") if cliffs else "ab"))
    assert len(waiting) == len(cliffs)
    rows = waiting.take(1)
    assert (rows is None) if not cliffs else solutions(rows) == [f"solution {uid}" for uid in cliffs]


def test_a_cliff_of_the_step_before_does_not_wait_again_for_its_own_privileged_rollouts() -> None:
    waiting = WaitingCliffs(asked=[prompts("a")])
    again = {transfer.record_key("new"): GroupRecord("z", cliff=False, solved=False, reissued=True)}
    waiting.remember(records("a") | again)
    assert len(waiting) == 1


def test_a_cliff_that_was_never_asked_for_is_an_error() -> None:
    with pytest.raises(KeyError, match="no prompts of this step"):
        WaitingCliffs(asked=[prompts("a")]).remember(records("b"))


@pytest.mark.parametrize("cliffs", ["", "bd"])
def test_a_checkpoint_gives_back_the_rows_that_waited(tmp_path: Path, cliffs: str) -> None:
    waiting, loaded = WaitingCliffs(asked=[prompts("a", "b", "c", "d")]), WaitingCliffs()
    waiting.remember(records(cliffs, "ac"))
    waiting.save(str(tmp_path))
    loaded.load(str(tmp_path))
    assert len(loaded) == len(waiting) == len(cliffs)
    if cliffs:
        ours, theirs = waiting.take(5), loaded.take(5)
        assert ours is not None and theirs is not None
        assert solutions(ours) == solutions(theirs) and list(ours["index"]) == list(theirs["index"]) == [1, 3]


def test_a_checkpoint_without_the_file_leaves_none_waiting_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = WaitingCliffs()
    with caplog.at_level(logging.WARNING):
        waiting.load(str(tmp_path))
    assert len(waiting) == 0 and "re-issued cliffs in the same step" in caplog.text


def test_a_file_that_was_cut_short_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / CLIFFS_FILE).write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match=r"cut short.*remove that file"):
        WaitingCliffs().load(str(tmp_path))
