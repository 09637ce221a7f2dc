"""The launch scripts, without a GPU: the config that each one composes is accepted, and says what its text promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.config.checks import check_config

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIG = EXAMPLES.parent / "recipe/hdpo/config"
SCRIPTS = sorted(EXAMPLES.glob("*.sh"))


def composed(script: Path, folder: Path, *overrides: str, **env: str) -> DictConfig:
    """Run a script with an interpreter that prints its arguments, and compose them."""
    fake = folder / "python3"
    fake.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    fake.chmod(0o755)
    needed = {"MODEL": str(folder), "DATA": str(folder), "OUT": str(folder / "out"), "CHECKPOINTS": str(folder)}
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(script), *overrides],
        env={**os.environ, **needed, **env, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    module, entry, *arguments = json.loads(done.stdout.splitlines()[-1])
    assert (module, entry) == ("-m", "verl.trainer.main_ppo")
    assert arguments[:4] == ["--config-path", "pkg://recipe.hdpo.config", "--config-name", "hdpo_trainer"]
    with initialize_config_module("recipe.hdpo.config", version_base=None):
        return compose("hdpo_trainer", overrides=[a for a in arguments[4:] if not a.startswith("hydra.")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_script_composes_an_accepted_config_and_takes_overrides(script: Path, tmp_path: Path) -> None:
    config = composed(script, tmp_path, "hdpo.distillation_loss_coef=0.123")
    assert check_config(config).distillation_loss_coef == 0.123
    OmegaConf.resolve(config)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_control_takes_effect_in_every_script(script: Path, tmp_path: Path) -> None:
    """A script that set a control's key itself would win over it, silently."""
    plain = composed(script, tmp_path)
    for path in sorted((CONFIG / "control").glob("*.yaml")):
        expected = OmegaConf.merge(plain.hdpo, OmegaConf.load(path).hdpo)
        assert expected != plain.hdpo and composed(script, tmp_path, f"+control={path.stem}").hdpo == expected


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_script_prints_its_header_on_help_and_needs_nothing_for_it(script: Path, flag: str) -> None:
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", str(script), flag], env=env, capture_output=True, text=True, cwd="/", check=True)
    _, *lines = script.read_text().splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert len(header) > 1 and done.stdout.splitlines() == [line.removeprefix("# ") for line in header]
    assert done.stderr == ""


def test_the_8_gpu_script_has_the_papers_settings(tmp_path: Path) -> None:
    config = composed(EXAMPLES / "qwen2.5_math_1.5b_8gpu.sh", tmp_path)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.data.train_batch_size, rollout.n, rollout.temperature) == (32, 16, 1.0)
    assert (actor.clip_ratio, actor.optim.lr, actor.optim.lr_warmup_steps) == (0.2, 1e-6, 50)
    assert (config.trainer.total_training_steps, config.trainer.n_gpus_per_node) == (2000, 8)
    assert (config.hdpo.topk, config.hdpo.teacher, config.hdpo.distillation_loss_coef) == (64, "drifting", 0.01)
    assert rollout.max_model_len == 4096


def test_one_gpu_and_several_nodes_change_what_they_say_and_keep_the_rest(tmp_path: Path) -> None:
    one = composed(EXAMPLES / "qwen2.5_math_1.5b_1gpu.sh", tmp_path)
    assert one.trainer.n_gpus_per_node == 1 and one.actor_rollout_ref.actor.fsdp_config.param_offload
    many = composed(EXAMPLES / "qwen2.5_math_1.5b_multinode.sh", tmp_path, NNODES="4")
    assert (many.trainer.nnodes, many.data.train_batch_size) == (4, 128)
    assert one.actor_rollout_ref.actor.optim.lr == many.actor_rollout_ref.actor.optim.lr == 1e-6


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.name != "cpu_demo.sh"], ids=lambda p: p.name)
def test_checkpoints_go_to_an_absolute_folder_of_their_own_for_every_name(script: Path, tmp_path: Path) -> None:
    """A relative one would be another folder on every node of a Ray cluster."""
    trainer = composed(script, tmp_path, CHECKPOINTS="/shared", NAME="arm").trainer
    assert trainer.default_local_dir == "/shared/arm" and trainer.experiment_name == "arm"


@pytest.mark.parametrize("missing", ["CHECKPOINTS", "DATA"])
def test_several_nodes_need_shared_folders(missing: str, tmp_path: Path) -> None:
    env = {**os.environ, "CHECKPOINTS": str(tmp_path), "DATA": str(tmp_path)}
    script = str(EXAMPLES / "qwen2.5_math_1.5b_multinode.sh")
    del env[missing]
    done = subprocess.run(["bash", script], env=env, capture_output=True, text=True)
    assert done.returncode != 0 and missing in done.stderr and "share" in done.stderr


def test_the_cpu_demo_runs_on_the_cpu_device_in_fp32(tmp_path: Path) -> None:
    config = composed(EXAMPLES / "cpu_demo.sh", tmp_path)
    assert config.trainer.device == "cpu"
    assert config.actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype == "fp32"


def test_the_cpu_demo_says_which_variable_is_missing() -> None:
    env = {k: v for k, v in os.environ.items() if k not in ("MODEL", "DATA", "OUT")}
    done = subprocess.run(["bash", str(EXAMPLES / "cpu_demo.sh")], env=env, capture_output=True, text=True)
    assert done.returncode != 0 and "MODEL" in done.stderr
