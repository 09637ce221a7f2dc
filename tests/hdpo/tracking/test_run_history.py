"""What a checkpoint remembers of a run."""

import logging
from pathlib import Path

import pytest

from recipe.hdpo.tracking.run_history import History
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
