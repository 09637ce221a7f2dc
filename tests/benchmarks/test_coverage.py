"""The coverage study: its truths are what is drawn, and the command writes what it prints."""

import json

import numpy as np
import pytest

from benchmarks import coverage


@pytest.mark.parametrize("scenario", coverage.scenarios(), ids=lambda s: s.name)
def test_the_truth_of_a_scenario_is_the_mean_of_many_draws(scenario):
    rng = np.random.default_rng(0)
    arms = [scenario.draw(rng) for _ in range(2000)]
    means = [np.mean(drawn[0]) - (np.mean(drawn[1]) if len(drawn) == 2 else 0.0) for drawn in arms]
    assert np.mean(means) == pytest.approx(scenario.truth, abs=4 * np.std(means) / np.sqrt(len(means)))


def test_the_command_prints_and_writes_a_row_for_every_scenario(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["coverage", "--simulations", "2", "--out", str(tmp_path / "coverage.json")])
    monkeypatch.setattr(coverage.intervals, "RESAMPLES", coverage.intervals.RESAMPLES)
    coverage.main()
    written = json.loads((tmp_path / "coverage.json").read_text())
    assert (written["simulations"], written["resamples"]) == (2, 1000)
    rows = capsys.readouterr().out.splitlines()[2:]
    names = [scenario.name for scenario in coverage.scenarios()]
    assert [figures["name"] for figures in written["scenarios"]] == names
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in names]
