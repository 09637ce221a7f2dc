"""The real stack, end to end on two ranks: Ray, TransferQueue, vLLM servers, FSDP2 over gloo; then resumed.

Starting it all takes longer than the steps, so there are two trainings: four steps from a drifting teacher, which
re-issue cliffs in the next step, and two more from a frozen one, a second copy of the first weights. These re-issue
what waited in the checkpoint, and then their own cliffs in the same step. The model is random and the reward is a
checksum of the response, so cliffs and kept trajectories come by chance. That no step of the last three of four has
both a kept trajectory and a policy gradient has odds of about 1 to 10^5; that the two others keep nothing, 1 to 2,500.

The first is a GRPO command on verl's own config with one flag more, and every logger; the second begins with the
recipe's config.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_preprocess import sums
from recipe.hdpo import transfer
from recipe.hdpo.algorithm.leakage import reference_pattern
from recipe.hdpo.cliffs.files import Run as CliffFiles
from recipe.hdpo.cliffs.files import find_run
from recipe.hdpo.cliffs.page import cliff_page
from recipe.hdpo.tracking.kept_text import kept_files
from tests.e2e import reward
from tests.e2e.logs import Values, tensorboard_values, wandb_values
from tests.hdpo.training.fsdp_ranks import make_chat_model

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
STEPS, MORE, J = 4, 2, 6
COUNTED = ("cliffs", "privileged_rollouts", "kept_trajectories")
# The demo's chat template with one user turn.
CHAT, END = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"


# The interpreter of the first training: what a GRPO command has on verl's own config, and one flag.
ONE_FLAG = """#!/bin/bash
[ "${*:3:4}" = "--config-path pkg://recipe.hdpo.config --config-name hdpo_trainer" ] || exit 2
exec %s "${@:1:2}" algorithm.adv_estimator=grpo actor_rollout_ref.rollout.name=vllm +use=hdpo "${@:7}"
"""


@dataclass
class Run:
    """One training run: metrics by step, and its console."""

    metrics: dict[int, dict[str, float]]
    console: str


def train(
    out: Path, model: Path, data: Path, steps: int, name: str, *overrides: str, python: str = sys.executable
) -> Run:
    """examples/cpu_demo.sh with a tiny model."""
    metrics = out / f"{name}.jsonl"
    env = {**os.environ, "MODEL": str(model), "DATA": str(data), "OUT": str(out), "METRICS": str(metrics)}
    env |= {"PYTHON": python, "WANDB_MODE": "offline", "WANDB_DIR": str(out), "TENSORBOARD_DIR": str(out / "events")}
    # By default Ray's workers give way to every other program, here to the tests beside them.
    env["RAY_worker_niceness"] = "0"
    command = [
        "bash",
        "examples/cpu_demo.sh",
        "data.train_batch_size=8",
        "data.max_response_length=24",
        "actor_rollout_ref.rollout.n=3",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "actor_rollout_ref.actor.optim.lr=1e-3",
        "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
        f"hdpo.privileged.n={J}",
        "hdpo.privileged.schedule=next_step",
        # A random model ends hardly one response in ten.
        "hdpo.privileged.keep_truncated=true",
        "hdpo.distillation_loss_coef=1.0",
        "hdpo.gradient_ratio_interval=1",
        "hdpo.validate_greedy=true",
        "actor_rollout_ref.rollout.val_kwargs.temperature=1.0",
        "hdpo.rollout_seed=1",
        "reward.custom_reward_function.path=tests/e2e/reward.py",
        "trainer.n_gpus_per_node=2",
        f"trainer.rollout_data_dir={out / 'rollouts'}",
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={STEPS}",
        f"trainer.test_freq={STEPS}",
        "actor_rollout_ref.rollout.val_kwargs.n=2",
        "actor_rollout_ref.rollout.val_kwargs.do_sample=true",
        "actor_rollout_ref.rollout.val_kwargs.temperature=1.0",
        *overrides,
    ]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return Run({line["step"]: line["data"] for line in lines}, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("e2e")
    make_chat_model(folder / "model")
    sums.main(["--out", str(folder / "data"), "--train-size", "64", "--test-size", "5"])
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> Run:
    python = folder / "one_flag"
    python.write_text(ONE_FLAG % sys.executable)
    python.chmod(0o755)
    run = (folder / "run", folder / "model", folder / "data", STEPS, "first")
    return train(*run, "trainer.logger=[console,file,tensorboard,wandb]", python=str(python))


@pytest.fixture(scope="module")
def resumed(folder: Path, first: Run) -> Run:
    more = (STEPS + MORE, "resumed", "hdpo.teacher=frozen", "hdpo.privileged.schedule=same_step")
    return train(folder / "run", folder / "model", folder / "data", *more)


def total(run: Run, name: str) -> float:
    return sum(step.get(name, 0.0) for step in run.metrics.values())


def test_cliffs_occur_and_privileged_trajectories_are_kept_and_distilled(first: Run) -> None:
    assert sorted(first.metrics) == [1, 2, 3, 4]
    assert total(first, "hdpo/cliffs") > 0
    kept = [step for step in first.metrics.values() if step["hdpo/kept_trajectories"] > 0]
    assert kept
    for step in kept:
        assert 0.0 < step["hdpo/jsd_mean"] < 0.6931472
        assert step["hdpo/loss_distillation"] == pytest.approx(step["hdpo/jsd_mean"])
        assert 0.0 < step["hdpo/teacher_topk_mass"] <= 1.0 + 1e-6
    assert total(first, "hdpo/skipped_error") == total(first, "hdpo/skipped_too_long") == 0


def test_every_cliff_is_re_issued_in_the_next_step_and_the_checkpoints_by_the_run_that_goes_on_from_it(
    first: Run, resumed: Run
) -> None:
    before = 0.0
    for step in range(1, STEPS + 1):
        data = first.metrics[step]
        assert data["hdpo/reissued_cliffs"] == before
        assert data["hdpo/privileged_rollouts"] == J * before
        before = data["hdpo/cliffs"]
        assert data["hdpo/waiting_cliffs"] == before
    assert before > 0
    assert f"the {before:.0f} cliffs of the last step are not re-issued" in first.console
    reissued = [resumed.metrics[step]["hdpo/reissued_cliffs"] for step in (STEPS + 1, STEPS + MORE)]
    assert reissued == [before, 0.0]


def test_with_same_step_every_cliff_is_re_issued_in_its_own(resumed: Run) -> None:
    for data in resumed.metrics.values():
        assert data["hdpo/privileged_rollouts"] == J * (data["hdpo/cliffs"] + data["hdpo/reissued_cliffs"]) > 0
        assert "hdpo/waiting_cliffs" not in data


def test_a_frozen_teacher_distills_too(resumed: Run) -> None:
    kept = [step for step in resumed.metrics.values() if step["hdpo/kept_trajectories"] > 0]
    assert kept and all(0.0 < step["hdpo/jsd_mean"] < 0.6931472 for step in kept)
    assert all(step["hdpo/loss_distillation"] == pytest.approx(step["hdpo/jsd_mean"]) for step in kept)


def test_the_text_of_every_kept_trajectory_is_written_whole_and_the_teacher_was_shown_the_solution_line_by_line(
    first: Run, resumed: Run, folder: Path
) -> None:
    kept = {step: data["hdpo/kept_trajectories"] for step, data in {**first.metrics, **resumed.metrics}.items()}
    files = {int(path.stem): path.read_text().splitlines() for path in kept_files(folder / "run/rollouts")}
    assert {step: len(lines) for step, lines in files.items()} == {step: n for step, n in kept.items() if n > 0}
    rows = pq.read_table(folder / "data/train.parquet").to_pylist()
    solutions = {row["prompt"][0]["content"]: row["extra_info"]["solution"] for row in rows}
    assert all("\n" in solution for solution in solutions.values())
    lines = [json.loads(line) for line in itertools.chain(*files.values())]
    for line in lines:
        problem = line[transfer.STUDENT_PROMPT].partition("user\n")[2].partition("<|im_end|>")[0]
        assert line[transfer.STUDENT_PROMPT] == CHAT.format(problem)
        assert line[transfer.TEACHER_PROMPT] == CHAT.format(f"{problem}\nReference:\n{solutions[problem]}")
    responses = [line[transfer.RESPONSE].removesuffix(END) for line in lines]
    ended = sum(line[transfer.RESPONSE].endswith(END) for line in lines)
    runs = {**first.metrics, **resumed.metrics}.values()
    assert len(lines) - ended == sum(step["hdpo/kept_truncated"] for step in runs) > 0
    # The reward function sees no special token; between two pieces of a character such a one changes the text.
    plain = [response for response in responses if "<|" not in response]
    assert len(plain) > len(lines) / 2
    assert all(reward.compute_score("", response, "") == 1.0 for response in plain)


def test_each_kept_token_is_recorded_with_its_divergence_and_the_cliff_page_shows_every_cliff(
    first: Run, resumed: Run, folder: Path
) -> None:
    steps = {**first.metrics, **resumed.metrics}
    for path in kept_files(folder / "run/rollouts"):
        recorded = [json.loads(line)["hdpo_tokens"]["divergence"] for line in path.read_text().splitlines()]
        divergences = list(itertools.chain(*recorded))
        assert len(divergences) == steps[int(path.stem)]["hdpo/kept_tokens"]
        # One mini-batch a step: the mean over its tokens. They are written with six digits.
        assert sum(divergences) / len(divergences) == pytest.approx(steps[int(path.stem)]["hdpo/jsd_mean"], rel=1e-5)
    page, headline = cliff_page(CliffFiles(find_run(folder / "run")), reference_pattern())
    cliffs, attempts, kept = (sum(data[f"hdpo/{name}"] for data in steps.values()) for name in COUNTED)
    assert headline.startswith(f"{cliffs:.0f} cliffs in 6 steps: {attempts:.0f} privileged rollouts, {kept:.0f} kept")
    # What waited for the next step is one entry, under the uid of its re-issue.
    assert page.count('"uid":') == cliffs


def test_both_terms_have_a_gradient(first: Run) -> None:
    measured = [s for s in first.metrics.values() if "hdpo/grad_norm_ratio" in s]
    assert measured
    for step in measured:
        assert step["hdpo/grad_norm_distillation"] > 0 and step["hdpo/grad_norm_grpo"] > 0
        assert step["actor/grad_norm"] > 0


def test_rewards_are_those_of_the_rollouts_alone(first: Run) -> None:
    """24 rollouts a step with a 0/1 reward: the mean is a multiple of 1/24, whatever was kept in whichever step."""
    for step in first.metrics.values():
        assert step["critic/score/mean"] * 24 == pytest.approx(round(step["critic/score/mean"] * 24), abs=1e-4)


def test_rollout_and_training_log_probs_agree(first: Run) -> None:
    """The weights of every step reach vLLM, and both sides read the same tokens."""
    for step in first.metrics.values():
        assert step["training/rollout_probs_diff_max"] < 1e-4


def test_resume_goes_on_with_the_next_step_and_the_cliff_history(first: Run, resumed: Run, folder: Path) -> None:
    assert sorted(resumed.metrics) == [STEPS + 1, STEPS + MORE]
    saved = json.loads((folder / "run/checkpoints" / f"global_step_{STEPS}" / "hdpo_history.json").read_text())
    assert len(saved["cliffs"]["ever_cliffs"]) == first.metrics[STEPS]["hdpo/ever_cliffs"]
    assert resumed.metrics[STEPS + 1]["hdpo/ever_cliffs"] >= len(saved["cliffs"]["ever_cliffs"])


def test_validation_logs_the_unbiased_pass_at_k_beside_verls_own(first: Run) -> None:
    last = first.metrics[STEPS]
    assert {"val-hdpo/hdpo/sums/pass@1", "val-hdpo/hdpo/sums/pass@2"} <= last.keys()
    assert 0.0 <= last["val-hdpo/hdpo/sums/pass@1"] <= last["val-hdpo/hdpo/sums/pass@2"] <= 1.0
    [mean] = [value for name, value in last.items() if re.fullmatch(r"val-\w+/hdpo/sums/reward/mean@2", name)]
    assert last["val-hdpo/hdpo/sums/pass@1"] == pytest.approx(mean)
    assert 0.0 <= last["val-hdpo/hdpo/sums/greedy"] <= 1.0
    assert not any("greedy_score" in name for name in last)


def test_one_flag_on_verls_own_config_takes_hdpos_estimator_in_the_place_of_the_commands(first: Run) -> None:
    assert "HDPO: advantages are HDPO's leave-one-out ones: algorithm.adv_estimator=grpo gives way" in first.console
    assert "HDPO: data.filter_overlong_prompts=false" in first.console  # verl's own default, not the recipe's


@pytest.mark.parametrize("read", [lambda out: tensorboard_values(out / "events"), wandb_values], ids=["events", "W&B"])
def test_tensorboard_and_wandb_get_every_hdpo_metric_of_the_file_logger_with_its_value(
    first: Run, folder: Path, read: Callable[[Path], Values]
) -> None:
    written = {(step, name): value for step, data in first.metrics.items() for name, value in data.items()}
    hdpos = {key: value for key, value in written.items() if key[1].startswith(("hdpo/", "val-hdpo/"))}
    found = {key: value for key, value in read(folder / "run").items() if key[1].startswith(("hdpo/", "val-hdpo/"))}
    assert len({name for _, name in hdpos}) > 30
    assert found == pytest.approx(hdpos, rel=1e-6)  # events are float32


def test_every_promised_metric_reaches_the_logger(first: Run) -> None:
    names = set().union(*(step.keys() for step in first.metrics.values()))
    promised = {
        *("cliff_rate", "cliffs", "cliffs_solved_now", "reissued_cliffs", "waiting_cliffs"),
        *("privileged_rollouts", "privileged_solve_rate", "kept_trajectories", "kept_tokens"),
        *("privileged_solve_rate_recent", "teacher_collapse", "solved_groups_recent", "student_collapse"),
        *("skipped_truncated", "kept_truncated", "truncated_rate", "privileged_truncated_rate"),
        *("overlong_prompts", "lost_rollouts", "unscored_rollouts"),
        *("skipped_too_long", "skipped_no_solution", "skipped_error"),
        *("jsd_mean", "teacher_topk_mass", "student_topk_mass", "loss_distillation", "grad_norm_ratio"),
        *("timing_s/privileged_wait", "timing_s/teacher_pass"),
    }
    assert {f"hdpo/{name}" for name in promised} <= names
    assert "actor/pg_loss" in names
