"""Cliffs that were distilled on rest, come back, and are counted at their first visit after the delay."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.algorithm.privileged_prompt import prompt_id
from recipe.hdpo.config.checks import check_config, refusals
from recipe.hdpo.training.reinjection import REINJECTION_FILE, Reinjection
from tests.hdpo.composed_config import composed
from tests.hdpo.training.test_waiting_cliffs import prompts


def loader(letters: str, size: int = 4) -> Callable[[], TensorDict]:
    """The data loader: these problems in turn, for ever, ``size`` at a time."""
    order = itertools.cycle(letters)
    return lambda: prompts(*itertools.islice(order, size))


def shown(batch: TensorDict) -> str:
    return "".join(messages[0]["content"][-1] for messages in batch["raw_prompt"])


def record(letter: str, outcome: str = "solved", **more: Any) -> GroupRecord:
    """Of one group: a cliff whose privileged rollout was kept ("kept") or not ("cliff"), solved, or lost."""
    problem = prompt_id([{"role": "user", "content": f"problem {letter}"}], "")
    kept = int(outcome == "kept")
    cliff = outcome in ("kept", "cliff") and not more.get("reissued")
    options = {"rollouts": int(outcome in ("kept", "cliff")), **more}
    return GroupRecord(problem, cliff=cliff, solved=outcome == "solved", kept=kept, **options)


def step(memory: Reinjection, number: int, fetch: Callable[[], TensorDict], **outcomes: str) -> tuple[str, dict]:
    """One step: its problems, and its metrics; every problem is solved unless ``outcomes`` says otherwise."""
    asked = shown(memory.next_batch(number, 4, fetch, most=100))
    return asked, memory.settle(number, [record(letter, outcomes.get(letter, "solved")) for letter in asked])


def test_a_cliff_that_was_distilled_on_is_left_out_for_the_delay_and_then_comes_back_first() -> None:
    memory, fetch = Reinjection(delay=3, share=0.25), loader("abcdef")
    assert step(memory, 1, fetch, b="kept")[0] == "abcd"
    asked, metrics = step(memory, 2, fetch)
    # The loader's next rows are e f a b, then c d e f: b rests.
    assert (asked, metrics["hdpo/passed_over_rows"], metrics["hdpo/resting_cliffs"]) == ("efac", 1, 1)
    assert step(memory, 3, fetch)[0] == "defa"
    asked, metrics = step(memory, 4, fetch)
    assert asked[0] == "b" and metrics["hdpo/reinjected_prompts"] == 1
    assert (metrics["hdpo/visits_after_delay"], metrics["hdpo/solved_after_delay"]) == (1, 1.0)
    # Solved: from now on it comes in its turn.
    assert memory.due == {} == memory.rows
    assert "hdpo/solved_after_delay" not in step(memory, 5, fetch)[1]


def test_a_cliff_that_came_back_does_not_come_twice_in_a_step_that_is_refilled() -> None:
    memory, fetch = Reinjection(delay=2, share=0.25), loader("abcdef")
    step(memory, 1, fetch, a="kept")
    step(memory, 2, fetch)
    first = shown(memory.next_batch(3, 4, fetch, most=100))
    assert first[0] == "a"
    refill = "".join(shown(memory.next_batch(3, 2, fetch, most=100)) for _ in range(3))
    assert "a" not in first[1:] + refill


def test_a_cliff_again_is_distilled_on_and_rests_anew_and_one_of_which_nothing_was_kept_does_not() -> None:
    memory, fetch = Reinjection(delay=2, share=0.5), loader("abcdefgh")
    step(memory, 1, fetch, a="kept", b="kept", c="cliff")
    assert len(memory.due) == 2
    step(memory, 2, fetch)
    asked, metrics = step(memory, 3, fetch, a="kept", b="cliff")
    assert set(asked[:2]) == {"a", "b"} and (
        metrics["hdpo/visits_after_delay"],
        metrics["hdpo/solved_after_delay"],
    ) == (2, 0.0)
    assert list(memory.due.values()) == [5] and len(memory.rows) == 1


def test_a_visit_of_which_nobody_knows_the_outcome_counts_for_nothing_and_is_made_up_for() -> None:
    memory, fetch = Reinjection(delay=1, share=0.25), loader("abcdefgh")
    step(memory, 1, fetch, a="kept")
    asked, metrics = step(memory, 2, fetch, a="lost")
    assert asked[0] == "a" and metrics["hdpo/visits_after_delay"] == 0
    assert step(memory, 3, fetch)[1]["hdpo/visits_after_delay"] == 1


def test_no_more_than_the_share_of_a_batch_comes_back_the_longest_due_first() -> None:
    memory, fetch = Reinjection(delay=1, share=0.5), loader("abcdefgh")
    step(memory, 1, fetch, c="kept", d="kept")
    step(memory, 2, fetch, c="kept", d="kept", e="kept")
    asked, metrics = step(memory, 3, fetch)
    assert metrics["hdpo/reinjected_prompts"] == 2 and set(asked[:2]) <= set("cde") and len(asked) == 4


def test_a_share_of_less_than_one_row_is_one_row() -> None:
    memory, fetch = Reinjection(delay=1, share=0.1), loader("abcdefgh")
    step(memory, 1, fetch, a="kept")
    assert step(memory, 2, fetch)[0][0] == "a"


def test_a_cliff_that_comes_back_is_not_taken_from_the_loader_as_well() -> None:
    memory, fetch = Reinjection(delay=1, share=0.25), loader("abcd")
    step(memory, 1, fetch, a="kept")
    assert step(memory, 2, fetch)[0] == "abcd"


def test_one_that_is_due_and_beyond_the_share_may_come_from_the_loader() -> None:
    memory, fetch = Reinjection(delay=1, share=0.25), loader("abcd")
    step(memory, 1, fetch, a="kept", b="kept")
    asked, metrics = step(memory, 2, fetch)
    assert sorted(asked) == list("abcd") and metrics["hdpo/visits_after_delay"] == 2


def test_privileged_rollouts_of_the_next_step_decide_there() -> None:
    memory, fetch = Reinjection(delay=2, share=0.25), loader("abcdefgh")
    asked = memory.next_batch(1, 4, fetch, most=100)
    memory.settle(1, [record(letter, "cliff", rollouts=0) for letter in shown(asked)[:2]])
    assert memory.due == {} and len(memory.rows) == 2
    memory.next_batch(2, 4, fetch, most=100)
    memory.settle(2, [record("a", "kept", reissued=True), record("b", "cliff", reissued=True)])
    assert list(memory.due.values()) == [4] and len(memory.rows) == 1


def test_the_row_of_a_cliff_that_could_not_be_shown_anything_is_not_kept_for_ever() -> None:
    memory, fetch = Reinjection(delay=2, share=0.25), loader("abcdefgh")
    asked = memory.next_batch(1, 4, fetch, most=100)
    memory.settle(1, [record(shown(asked)[0], "cliff", rollouts=0, too_long=1)])
    assert len(memory.rows) == 1
    step(memory, 2, fetch)
    assert memory.rows == {} == memory.due


def test_where_all_of_the_data_rests_resting_rows_are_taken_and_nothing_waits() -> None:
    memory, fetch = Reinjection(delay=50, share=0.25), loader("abcd")
    step(memory, 1, fetch, a="kept", b="kept", c="kept", d="kept")
    assert shown(memory.next_batch(2, 4, fetch, most=4)) == "abcd"


def test_a_checkpoint_gives_back_what_rests_when_it_is_due_and_the_rows_that_are_left(tmp_path: Path) -> None:
    memory, fetch = Reinjection(delay=2, share=0.25), loader("abcdefgh")
    step(memory, 1, fetch, a="kept")
    shown(memory.next_batch(2, 3, fetch, most=100))
    memory.settle(2, [])
    memory.save(str(tmp_path))
    loaded = Reinjection(delay=2, share=0.25)
    loaded.load(str(tmp_path))
    again = loader("abcdefgh")
    again(), again()
    assert shown(loaded.next_batch(3, 4, again, most=100)) == shown(memory.next_batch(3, 4, fetch, most=100))
    assert loaded.due == memory.due


def test_a_checkpoint_without_the_file_says_so_and_a_cut_one_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Reinjection(1, 0.5).load(str(tmp_path))
    assert "no cliff rests" in caplog.text
    (tmp_path / REINJECTION_FILE).write_bytes(b"PK cut")
    with pytest.raises(ValueError, match=r"cut short.*remove that file"):
        Reinjection(1, 0.5).load(str(tmp_path))


def test_batches_have_uids_of_their_own_whenever_a_row_comes() -> None:
    memory, fetch = Reinjection(delay=1, share=0.25), loader("abcd")
    uids = list(memory.next_batch(1, 4, fetch, most=100)["uid"])
    memory.settle(1, [record("a", "kept")])
    batch = memory.next_batch(2, 4, fetch, most=100)
    assert shown(batch)[0] == "a" and not set(uids) & set(batch["uid"]) and len(set(batch["uid"])) == 4
    assert tu.get_non_tensor_data(batch, "global_steps", None) in (4, None)


def test_the_knobs_are_refused_where_they_would_do_nothing() -> None:
    for off in ("hdpo.privileged.n=0", "hdpo.privileged.use=replace", "hdpo.distillation_loss_coef=0"):
        with pytest.raises(ValueError, match="lets cliffs rest that were distilled on"):
            check_config(composed("hdpo.reinjection_delay=3", off))
    [message] = refusals(composed("hdpo.reinjection_delay=3", "trainer.v1.trainer_mode=hdpo_colocate_async"))
    assert "none could rest" in message
