"""Reading the metrics file of a training run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recipe.hdpo.evaluation.training_log import read_training_log


def _write(path, entries):
    path.write_text("".join(json.dumps({"step": s, "data": d}) + "\n" for s, d in entries))
    return path


def test_each_metric_becomes_a_series_by_step(tmp_path):
    file = _write(tmp_path / "m.jsonl", [(1, {"a": 0.5, "b": 1}), (2, {"a": 0.25})])
    found = read_training_log(file)
    np.testing.assert_array_equal(found["a"], ([1, 2], [0.5, 0.25]))
    np.testing.assert_array_equal(found["b"], ([1], [1.0]))


def test_steps_repeated_by_a_resumed_run_take_the_later_value(tmp_path):
    file = _write(tmp_path / "m.jsonl", [(1, {"a": 1.0}), (2, {"a": 2.0}), (3, {"a": 3.0}), (2, {"a": 20.0})])
    np.testing.assert_array_equal(read_training_log(file)["a"], ([1, 2, 3], [1.0, 20.0, 3.0]))


def test_two_lines_of_one_step_are_merged(tmp_path):
    found = read_training_log(_write(tmp_path / "m.jsonl", [(1, {"a": 1.0}), (1, {"val": 2.0})]))
    assert set(found) == {"a", "val"}


def test_values_that_are_no_finite_numbers_leave_a_gap(tmp_path):
    file = tmp_path / "m.jsonl"
    file.write_text('{"step": 1, "data": {"a": null, "b": "x"}}\n{"step": 2, "data": {"a": NaN}}\n')
    assert read_training_log(file) == {}


def test_what_verls_file_logger_writes_can_be_read(tmp_path, monkeypatch):
    tracking = pytest.importorskip("verl.utils.tracking")
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "m.jsonl"))
    logger = tracking.FileLogger("project", "experiment")
    logger.log({"hdpo/cliff_rate": np.float32(0.5)}, step=3)
    logger.finish()
    np.testing.assert_array_equal(read_training_log(tmp_path / "m.jsonl")["hdpo/cliff_rate"], ([3], [0.5]))


def test_a_missing_an_empty_and_a_cut_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_training_log(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_text("")
    with pytest.raises(ValueError, match="empty"):
        read_training_log(tmp_path / "m.jsonl")
    for bad in ('{"step": 2, "da', '{"step": 2}', "[1]", '{"step": 2, "data": 5}'):
        (tmp_path / "m.jsonl").write_text('{"step": 1, "data": {"a": 1}}\n' + bad)
        with pytest.raises(ValueError, match=r"line 2 of 2: cut off"):
            read_training_log(tmp_path / "m.jsonl")
