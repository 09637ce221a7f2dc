"""What a checkpoint remembers of a run."""

import json
import logging
import re
from pathlib import Path

import pytest

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.algorithm.coefficient import CliffShare
from recipe.hdpo.tracking.cliff_history import CliffHistory
from recipe.hdpo.tracking.run_history import HISTORY_FILE, History
from recipe.hdpo.tracking.teacher_collapse import CollapseMonitor


def test_a_checkpoint_of_other_knobs_is_loaded_and_the_difference_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    knobs = {"teacher": "drifting", "topk": 64, "privileged": {"n": 1, "use": "distill"}}
    History(CollapseMonitor(0.5), knobs=knobs).save(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        History(CollapseMonitor(0.5), knobs=knobs).load(str(tmp_path))
        assert caplog.text == ""
        History(CollapseMonitor(0.5), knobs=knobs | {"privileged": {"n": 0, "use": "distill"}}).load(str(tmp_path))
    assert "by a run with hdpo.privileged.n=1, which are other values" in caplog.text
    assert "trainer.experiment_name" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"cliffs": {"open_cliffs": [], "ever_',
        "[]",
        "{}",
        '{"cliffs": {}, "teacher": {"steps": 3}}',
        '{"cliffs": {"open_cliffs": 3}, "teacher": TEACHER}',
        '{"cliffs": {"one_more": []}, "teacher": TEACHER}',
        '{"cliffs": {}, "teacher": {"one_more": 1}}',
        '{"cliffs": {}, "teacher": TEACHER, "knobs": 3}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:60],
)
def test_a_history_that_cannot_be_read_is_one_error_with_the_file_and_the_way_out(tmp_path: Path, content: str) -> None:
    history = History(teacher=CollapseMonitor(0.7), cliffs=CliffHistory(open_cliffs={"p"}))
    teacher = json.dumps(CollapseMonitor(0.7).state_dict() | {"steps": 9})
    path = tmp_path / HISTORY_FILE
    path.write_text(content.replace("TEACHER", teacher))
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} cannot be read .* remove that file"):
        history.load(str(tmp_path))
    assert history.cliffs.open_cliffs == {"p"}
    path.unlink()
    history.load(str(tmp_path))


def test_a_resume_with_other_data_is_refused_where_rows_are_gone_and_said_where_there_are_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    History(CollapseMonitor(0.5), rows=100).save(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        for same in (100, 0):
            History(CollapseMonitor(0.5), rows=same).load(str(tmp_path))
        assert caplog.text == ""
        History(CollapseMonitor(0.5), rows=101).load(str(tmp_path))
    assert f"has 101 rows, and had 100 when {tmp_path} was written" in caplog.text and "data.pt" in caplog.text
    with pytest.raises(ValueError, match=r"has 99 rows, and had 100 .* Put the old data back, or remove .*data\.pt"):
        History(CollapseMonitor(0.5), rows=99).load(str(tmp_path))


def test_the_share_of_cliffs_goes_through_a_checkpoint_and_one_from_before_it_begins_anew(tmp_path: Path) -> None:
    history = History(teacher=CollapseMonitor(0.0))
    history.update([GroupRecord("a", cliff=True, solved=False), GroupRecord("b", cliff=False, solved=True)])
    history.update([GroupRecord("a", cliff=False, solved=False, reissued=True)])
    assert (history.cliff_share.cliffs, history.cliff_share.prompts, history.cliff_share.steps) == (1, 2, 1)
    history.save(str(tmp_path))
    loaded = History(teacher=CollapseMonitor(0.0))
    loaded.load(str(tmp_path))
    assert loaded.cliff_share == history.cliff_share
    file = tmp_path / HISTORY_FILE
    state = json.loads(file.read_text())
    del state["cliff_share"]
    file.write_text(json.dumps(state))
    loaded.load(str(tmp_path))
    assert loaded.cliff_share == CliffShare()
