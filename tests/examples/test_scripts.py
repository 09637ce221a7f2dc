"""The launch scripts, without a GPU: the config that each one composes is accepted, and says what its text promises."""

from __future__ import annotations

import copy
import hashlib
import inspect
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from examples.demo.sums_model import PRIVILEGED_TEMPLATE
from examples.training import SETTINGS_VERSION
from recipe.hdpo.config.adapt import adapt
from recipe.hdpo.config.checks import check_config, refusals
from recipe.hdpo.config.keys import uses_lora
from recipe.hdpo.config.lengths import max_privileged_prompt_length
from tests.hdpo.composed_config import composed_from, hydra_composed

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIG = EXAMPLES.parent / "recipe/hdpo/config"
# On verl's own config with one flag: one base in the recipe's folder, and what calls it.
BASE = EXAMPLES.parent / "recipe/hdpo/run_qwen3_8b_fsdp.sh"
ONE_FLAG = [BASE, *sorted(EXAMPLES.glob("qwen3_*.sh"))]
# On the recipe's config.
SCRIPTS = [path for path in sorted(EXAMPLES.glob("*.sh")) if path not in ONE_FLAG]


# Digest of what examples/cpu_demo.sh passes to verl. With a new version, its digest takes the place of the old one.
DEMO_SETTINGS = {2: "a3ca44c866762e43"}


def arguments_of(script: Path, folder: Path, *overrides: str, **env: str) -> list[str]:
    """What a script passes to verl: run with an interpreter that prints its arguments."""
    commands = commands_of(script, folder, *overrides, **env)
    module, entry, *arguments = commands[-1]
    assert (module, entry) == ("-m", "verl.trainer.main_ppo")
    return arguments


def commands_of(script: Path, folder: Path, *overrides: str, **env: str) -> list[list[str]]:
    """The arguments of each call of Python that a script makes."""
    fake = folder / "python3"
    fake.write_text("#!/bin/bash\nprintf '%s\\0' \"$@\"; printf '\\n\\0'\n")
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
    return [call.split("\0") for call in done.stdout.removesuffix("\0\n\0").split("\0\n\0")]


def overrides_of(script: Path, folder: Path, *overrides: str, **env: str) -> list[str]:
    """What a script sets in the recipe's config."""
    arguments = arguments_of(script, folder, *overrides, **env)
    assert arguments[:4] == ["--config-path", "pkg://recipe.hdpo.config", "--config-name", "hdpo_trainer"]
    return [a for a in arguments[4:] if not a.startswith("hydra.")]


def composed(script: Path, folder: Path, *overrides: str, **env: str) -> DictConfig:
    """The config that a script's arguments compose."""
    return composed_from(*overrides_of(script, folder, *overrides, **env))


def test_the_demos_settings_are_those_of_the_version(tmp_path: Path) -> None:
    arguments = [a.replace(str(tmp_path), "") for a in arguments_of(EXAMPLES / "cpu_demo.sh", tmp_path)]
    digest = hashlib.sha256("\n".join(arguments).encode()).hexdigest()[:16]
    assert digest == DEMO_SETTINGS[SETTINGS_VERSION], (
        "examples/cpu_demo.sh sets something else: raise SETTINGS_VERSION of examples/training.py, and pin it here"
    )


def test_the_demos_privileged_prompt_is_the_one_that_its_base_model_was_taught_line_by_line(tmp_path: Path) -> None:
    template = composed(EXAMPLES / "cpu_demo.sh", tmp_path).hdpo.privileged.template
    taught = PRIVILEGED_TEMPLATE.format(problem="{{ problem }}", solution="{{ solution }}")
    assert template.splitlines() == ["{{ problem }}", "Reference:", "{{ solution }}"] and template == taught


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_script_composes_an_accepted_config_and_takes_overrides(script: Path, tmp_path: Path) -> None:
    overrides = overrides_of(script, tmp_path, "hdpo.distillation_loss_coef=0.123")
    config = hydra_composed(*overrides)
    assert config == composed_from(*overrides)
    assert check_config(config).distillation_loss_coef == 0.123
    OmegaConf.resolve(config)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_control_takes_effect_in_every_script(script: Path, tmp_path: Path) -> None:
    """A script that set a control's key itself would win over it, silently."""
    plain = composed(script, tmp_path)
    OmegaConf.set_struct(plain, False)  # a control may add options of the chat template
    for path in sorted((CONFIG / "control").glob("*.yaml")):
        expected = OmegaConf.merge(plain.hdpo, OmegaConf.load(path).hdpo)
        assert expected != plain.hdpo and composed(script, tmp_path, f"+control={path.stem}").hdpo == expected


@pytest.fixture(scope="module")
def one_flag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DictConfig]:
    """The configs of the scripts that start from verl's own, by name."""
    folder, found = tmp_path_factory.mktemp("one_flag"), {}
    with initialize_config_module("verl.trainer.config", version_base=None):
        for script in ONE_FLAG:
            arguments = arguments_of(script, folder, "hdpo.topk=7", CHECKPOINTS="/shared")
            assert arguments[0] == "+use=hdpo"
            found[script.stem] = compose("ppo_trainer", overrides=arguments)
    return found


def test_every_one_flag_script_composes_an_accepted_config_with_checkpoints_of_its_own(
    one_flag: dict[str, DictConfig],
) -> None:
    for name, config in one_flag.items():
        hdpo = check_config(config)
        assert (config.trainer.v1.trainer_mode, hdpo.topk, hdpo.privileged.n) == ("hdpo", 7, 1)
        # A problem and a solution as long as a response; or an attempt and what is said of it, each as long.
        derived = copy.deepcopy(config)
        adapt(derived, hdpo)
        responses = 16384 if name == "qwen3_8b_long" else 2048
        problem = 2048 if name == "qwen3_4b_code" else 1024
        shown = 2 if hdpo.privileged.of_feedback else 1
        assert max_privileged_prompt_length(derived, hdpo) == problem + shown * responses
        OmegaConf.resolve(derived)
    folders = {config.trainer.default_local_dir for config in one_flag.values()}
    assert folders == {f"/shared/{config.trainer.experiment_name}" for config in one_flag.values()}
    assert len(folders) == len(ONE_FLAG) == 9


# What each script says it changes, and nothing else.
CHANGED = {
    "qwen3_4b": {"trainer.n_gpus_per_node": 4},
    "qwen3_4b_ema": {"trainer.n_gpus_per_node": 4, "hdpo.teacher": "ema"},
    "qwen3_4b_gym": {
        "trainer.n_gpus_per_node": 4,
        "hdpo.privileged.source": "feedback",
        "reward.custom_reward_function.path": "pkg://recipe.hdpo.gym_reward",
    },
    "qwen3_4b_code": {
        "trainer.n_gpus_per_node": 4,
        "hdpo.privileged.source": "feedback",
        "data.max_prompt_length": 2048,
        "reward.custom_reward_function.path": "pkg://recipe.hdpo.code_reward",
    },
    "qwen3_8b_long": {
        "data.max_response_length": 16384,
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size": 2,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 20480,
        "hdpo.fused_head": True,
        "hdpo.privileged.schedule": "next_step",
    },
    "qwen3_8b_lora": {
        "actor_rollout_ref.model.lora_rank": 64,
        "actor_rollout_ref.model.lora_alpha": 64,
        "actor_rollout_ref.actor.optim.lr": 1e-5,
    },
    "qwen3_8b_sglang": {"actor_rollout_ref.rollout.name": "sglang"},
    "qwen3_8b_2nodes": {
        "trainer.nnodes": 2,
        "data.train_batch_size": 512,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 128,
    },
}
NAMED = ("experiment_name", "default_local_dir", "rollout_data_dir")


def test_a_one_flag_script_changes_of_its_base_what_it_says_and_nothing_else(one_flag: dict[str, DictConfig]) -> None:
    base = one_flag[BASE.stem]
    assert set(CHANGED) == set(one_flag) - {BASE.stem}
    for name, changes in CHANGED.items():
        expected = copy.deepcopy(base)
        for key, value in changes.items():
            assert OmegaConf.select(base, key) != value
            OmegaConf.update(expected, key, value)
        for key in NAMED:
            expected.trainer[key] = one_flag[name].trainer[key]
        assert one_flag[name] == expected, name


def test_the_models_that_the_one_flag_scripts_name_are_those_of_their_file_names(tmp_path: Path) -> None:
    for script in ONE_FLAG:
        [model] = [a for a in arguments_of(script, tmp_path, MODEL="") if a.startswith("actor_rollout_ref.model.path=")]
        size = re.search(r"qwen3_(\d+b)", script.stem)[1].upper()
        assert model == f"actor_rollout_ref.model.path=Qwen/Qwen3-{size}"


def test_no_one_flag_script_sets_what_a_control_does(tmp_path: Path) -> None:
    """It would win over the control, silently."""
    controls = [OmegaConf.load(path) for path in (CONFIG / "control").glob("*.yaml")]
    keys = {a.partition("=")[0] for script in ONE_FLAG for a in arguments_of(script, tmp_path) if a.startswith("hdpo.")}
    assert keys and not [key for key in keys for c in controls if OmegaConf.select(c, key) is not None]


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("script", SCRIPTS + ONE_FLAG, ids=lambda p: p.name)
def test_every_script_prints_its_header_on_help_and_needs_nothing_for_it(script: Path, flag: str) -> None:
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", str(script), flag], env=env, capture_output=True, text=True, cwd="/", check=True)
    _, *lines = script.read_text().splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert len(header) > 1 and done.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in header]
    assert done.stderr == ""


@pytest.fixture(scope="module")
def papers_run(tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    return composed(EXAMPLES / "qwen2.5_math_1.5b_8gpu.sh", tmp_path_factory.mktemp("papers_run"))


def test_the_8_gpu_script_has_the_papers_settings(papers_run: DictConfig) -> None:
    config = papers_run
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    optim = actor.optim
    # one optimizer step a step
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size, actor.ppo_epochs) == (32, 32, 1)
    assert (rollout.n, rollout.temperature, rollout.max_model_len) == (16, 1.0, 4096)
    assert (actor.clip_ratio, actor.clip_ratio_low, actor.clip_ratio_high) == (0.2, 0.2, 0.2)
    assert (actor.loss_agg_mode, actor.use_kl_loss, config.algorithm.use_kl_in_reward) == ("token-mean", False, False)
    assert (optim.optimizer_impl, optim.optimizer, optim.lr) == ("torch.optim", "AdamW", 1e-6)
    assert (list(optim.betas), optim.weight_decay, optim.clip_grad) == ([0.9, 0.999], 0.01, 1.0)
    assert not optim.override_optimizer_config
    assert inspect.signature(torch.optim.AdamW).parameters["eps"].default == 1e-8
    assert (config.trainer.total_training_steps, config.trainer.n_gpus_per_node) == (2000, 8)
    assert (config.hdpo.topk, config.hdpo.teacher, config.hdpo.distillation_loss_coef) == (64, "drifting", 0.01)
    seeds = (config.data.seed, actor.data_loader_seed, actor.fsdp_config.seed, rollout.seed)
    assert seeds == (42, 42, 42, 42)


def test_the_8_gpu_script_evaluates_as_the_paper_with_greedy_and_sampled_accuracy_side_by_side(
    papers_run: DictConfig,
) -> None:
    config = papers_run
    assert (config.trainer.test_freq, config.data.val_max_samples, config.hdpo.validate_greedy) == (10, 2048, True)
    samples = config.actor_rollout_ref.rollout.val_kwargs
    assert (samples.n, samples.do_sample, samples.temperature) == (8, True, 1.0)
    # 70,000 problems by default, of which 5 % are held out
    assert config.data.val_max_samples < 0.05 * 70_000


def test_the_8_gpu_script_warms_up_over_50_steps_and_keeps_the_rate_after_them(papers_run: DictConfig) -> None:
    """By verl's own schedule, with what its FSDP engine hands it."""
    from verl.utils.torch_functional import get_cosine_schedule_with_warmup

    optim = papers_run.actor_rollout_ref.actor.optim
    assert optim.lr_scheduler_type == "cosine"
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(
        optimizer,
        num_warmup_steps=optim.lr_warmup_steps,
        num_training_steps=2000,
        min_lr_ratio=optim.min_lr_ratio,
        num_cycles=optim.num_cycles,
        zero_indexed_step=optim.zero_indexed_step,
    )
    rates = []
    for _ in range(2000):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:50] == pytest.approx([0.02 * (step + 1) for step in range(50)])
    assert set(rates[50:]) == {1.0}


def test_the_8_gpu_script_leaves_a_privileged_prompt_what_a_response_does_not_take(papers_run: DictConfig) -> None:
    assert papers_run.data.max_response_length == 2560
    assert (
        max_privileged_prompt_length(papers_run, check_config(papers_run)) == 1536 > papers_run.data.max_prompt_length
    )


def test_one_gpu_and_several_nodes_change_what_they_say_and_keep_the_rest(tmp_path: Path) -> None:
    one = composed(EXAMPLES / "qwen2.5_math_1.5b_1gpu.sh", tmp_path)
    assert one.trainer.n_gpus_per_node == 1 and one.actor_rollout_ref.actor.fsdp_config.param_offload
    many = composed(EXAMPLES / "qwen2.5_math_1.5b_multinode.sh", tmp_path, NNODES="4")
    assert (many.trainer.nnodes, many.data.train_batch_size) == (4, 128)
    assert one.actor_rollout_ref.actor.optim.lr == many.actor_rollout_ref.actor.optim.lr == 1e-6


def test_the_lora_script_adds_an_adapter_and_a_rate_under_a_name_of_its_own_and_keeps_the_rest(
    papers_run: DictConfig, tmp_path: Path
) -> None:
    script = EXAMPLES / "qwen2.5_math_1.5b_lora.sh"
    config = composed(script, tmp_path, "hdpo.teacher=frozen")
    assert uses_lora(config) and not list(refusals(config))
    names = [run.trainer.experiment_name for run in (config, papers_run)]
    assert names == ["qwen2.5-math-1.5b-lora", "qwen2.5-math-1.5b"]
    model = config.actor_rollout_ref.model
    assert (model.lora_rank, model.lora_alpha, papers_run.actor_rollout_ref.model.lora_rank) == (64, 64, 0)
    rates = [run.actor_rollout_ref.actor.optim.lr for run in (config, papers_run)]
    assert rates == [1e-5, 1e-6]


@pytest.mark.parametrize("script", [s for s in SCRIPTS if not s.name.startswith("cpu_")], ids=lambda p: p.name)
def test_checkpoints_go_to_an_absolute_folder_of_their_own_for_every_name(script: Path, tmp_path: Path) -> None:
    """A relative one is another folder on every node of a Ray cluster. What runs without a GPU is for one machine."""
    trainer = composed(script, tmp_path, CHECKPOINTS="/shared", NAME="arm").trainer
    assert trainer.default_local_dir == "/shared/arm" and trainer.experiment_name == "arm"


@pytest.mark.parametrize("missing", ["CHECKPOINTS", "DATA"])
@pytest.mark.parametrize("name", ["qwen2.5_math_1.5b_multinode.sh", "qwen3_8b_2nodes.sh"])
def test_several_nodes_need_shared_folders(name: str, missing: str, tmp_path: Path) -> None:
    env = {**os.environ, "CHECKPOINTS": str(tmp_path), "DATA": str(tmp_path)}
    del env[missing]
    done = subprocess.run(["bash", str(EXAMPLES / name)], env=env, capture_output=True, text=True)
    assert done.returncode != 0 and missing in done.stderr and "share" in done.stderr


@pytest.mark.parametrize("name", ["qwen2.5_math_1.5b_multinode.sh", "qwen3_8b_2nodes.sh"])
def test_several_nodes_are_looked_at_before_the_training_starts(name: str, tmp_path: Path) -> None:
    check, _ = commands_of(EXAMPLES / name, tmp_path, NNODES="2", MODEL="org/name", CHECKPOINTS="/shared/c", DATA="/d")
    head = ["-m", "recipe.hdpo.cluster", "--nodes", "2", "--gpus-per-node", "8", "--shared", "/shared/c", "--paths"]
    assert check == [*head, "/d/train.parquet", "/d/test.parquet"]
    check, _ = commands_of(EXAMPLES / name, tmp_path, NNODES="2", CHECKPOINTS="/shared/c", DATA="/d")
    assert check[-1] == str(tmp_path)  # a model that is a folder


def test_the_cpu_demo_runs_on_the_cpu_device_in_fp32(tmp_path: Path) -> None:
    config = composed(EXAMPLES / "cpu_demo.sh", tmp_path)
    assert config.trainer.device == "cpu"
    assert config.actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype == "fp32"


def test_the_cpu_demo_says_which_variable_is_missing() -> None:
    env = {k: v for k, v in os.environ.items() if k not in ("MODEL", "DATA", "OUT")}
    done = subprocess.run(["bash", str(EXAMPLES / "cpu_demo.sh")], env=env, capture_output=True, text=True)
    assert done.returncode != 0 and "MODEL" in done.stderr
