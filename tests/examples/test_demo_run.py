"""The demo's bookkeeping: which step is done, and metrics over restarts."""

import json
import re
from pathlib import Path

import pytest

from examples import training
from examples.demo.run import ARMS, BASE_MODEL, PREFLIGHT, TEMPLATE
from examples.study.plan import read_plan
from examples.study.result_files import read_records
from examples.study.tasks import weights_sha256
from examples.training import MAX_TOKENS, ROOT, claim, last_step, merge_metrics
from recipe.hdpo.config.checks import read_hdpo
from recipe.hdpo.reward import GRADER_VERSION
from tests.hdpo.composed_config import composed


def _part(folder: Path, start: int, steps: range, tag: str) -> None:
    lines = [json.dumps({"step": step, "data": {"from": tag}}) for step in steps]
    (folder / f"metrics.from_{start}.jsonl").write_text("\n".join(lines) + "\n")


def test_the_last_whole_checkpoint_decides_where_training_goes_on(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("25")
    assert last_step(tmp_path) == 25


def test_metrics_of_a_restart_replace_the_steps_that_it_repeats(tmp_path: Path) -> None:
    _part(tmp_path, 0, range(1, 31), "first")
    _part(tmp_path, 25, range(26, 41), "second")
    merge_metrics(tmp_path)
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(1, 41))
    assert [entry["data"]["from"] for entry in entries] == ["first"] * 25 + ["second"] * 15


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    _part(tmp_path, 0, range(1, 3), "first")
    with (tmp_path / "metrics.from_0.jsonl").open("a") as file:
        file.write('{"step": 3, "da')
    merge_metrics(tmp_path)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("terminal", [False, True])
def test_a_log_gets_a_line_of_progress_a_step_and_a_terminal_one_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, terminal: bool
) -> None:
    metrics, seconds = tmp_path / "metrics.jsonl", iter(range(100))

    class Process:
        def poll(self) -> int | None:
            """It writes a step every ten seconds, and ends after the third."""
            second = next(seconds)
            if second in (10, 20, 30):
                entry = {"step": second // 10, "data": {"critic/score/mean": 0.5}}
                with metrics.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
            return 0 if second == 35 else None

    monkeypatch.setattr(training.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(training.sys.stderr, "isatty", lambda: terminal)
    training.follow(Process(), metrics, done=0, steps=3)
    shown = capsys.readouterr().err
    # The bar itself draws once when it opens and once when it closes.
    assert [shown.count(f"{step}/3") for step in range(4)] == ([11, 10, 10, 7] if terminal else [1, 1, 1, 2])
    assert "reward=0.50" in shown


def test_grpo_is_the_same_trainer_without_privileged_rollouts_and_both_have_rates_of_the_study() -> None:
    plan = read_plan("sums")
    script = (ROOT / "examples/cpu_demo.sh").read_text()
    [rate] = re.findall(r"optim\.lr=(\S+)", script)
    assert float(rate) in plan.learning_rates and "hdpo.distillation_loss_coef=1.0 " in script
    [control, lr] = ARMS["grpo"]
    assert ARMS["hdpo"] == [] and control == "+control=grpo"
    assert lr.startswith("actor_rollout_ref.actor.optim.lr=") and float(lr.partition("=")[2]) == plan.rates["grpo"]


def test_the_preflight_shows_the_privileged_prompt_and_the_length_of_training() -> None:
    script = (ROOT / "examples/cpu_demo.sh").read_text()
    assert json.dumps(TEMPLATE) in script and f"data.max_response_length={MAX_TOKENS} " in script
    k, j = (PREFLIGHT[PREFLIGHT.index(name) + 1] for name in ("--n", "--privileged-n"))
    assert f"actor_rollout_ref.rollout.n={k} " in script
    assert "hdpo.privileged.n=" not in script and j == read_hdpo(composed()).privileged.n


def test_the_demo_starts_from_the_weights_that_the_study_was_made_from() -> None:
    records = read_records(ROOT / "docs/results/sums/runs")
    assert records and {r.about["base_model_sha256"] for r in records} == {weights_sha256(BASE_MODEL)}


def test_a_folder_that_was_trained_with_other_settings_is_refused_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(tmp_path / "run", ["a=1", "b=2"])
    claim(tmp_path / "run", ["a=1", "b=2"])
    before = (tmp_path / "run" / "settings.json").read_text()
    with pytest.raises(SystemExit, match=r"overrides: b=2 there, b=3 now"):
        claim(tmp_path / "run", ["a=1", "b=3"])
    monkeypatch.setattr(training, "grader_name", lambda file: "hdpo 99")
    with pytest.raises(SystemExit, match=rf"grader: hdpo {GRADER_VERSION}, math-verify .* there, hdpo 99 now"):
        claim(tmp_path / "run", ["a=1", "b=2"])
    assert (tmp_path / "run" / "settings.json").read_text() == before


def test_a_checkpoint_of_unknown_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("25")
    with pytest.raises(SystemExit, match=r"no settings\.json"):
        claim(tmp_path, [])
