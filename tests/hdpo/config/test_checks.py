"""The recipe's config: composed by Hydra, checked against the dataclass, and refused where it cannot work."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.algorithm.gate import Gate
from recipe.hdpo.config import DivergenceConfig, HDPOConfig, PrivilegedConfig, checks
from recipe.hdpo.config.checks import ConfigCheckCallback, check_config, refusals
from recipe.hdpo.config.keys import ROLLOUT
from recipe.hdpo.config.rules import RULES
from tests.hdpo.composed_config import CONFIG, NEEDED, composed, hydra_composed
from tests.hdpo.fresh_interpreter import WAYS_IN


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("+device=cpu", "+control=sft", "hdpo.topk=3", "hdpo.topk=null"),
        ("~hdpo.divergence", "+actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32"),
        ("+hdpo.typo=1", "~hdpo.topk", "hdpo.privileged.template='{{ a }}, b'"),
    ],
    ids=str,
)
def test_configs_of_these_tests_are_what_hydra_composes(overrides: tuple[str, ...]) -> None:
    found = composed(*overrides)
    assert found == hydra_composed(*NEEDED, *overrides)
    assert OmegaConf.is_struct(found) and OmegaConf.is_struct(found.actor_rollout_ref)


def test_the_recipes_config_is_accepted_and_switches_everything_on() -> None:
    config = composed()
    hdpo = check_config(config)
    assert (config.algorithm.adv_estimator, config.actor_rollout_ref.actor.policy_loss.loss_mode) == ("hdpo", "hdpo")
    assert config.trainer.v1.trainer_mode == "hdpo"
    check_config(composed("trainer.v1.trainer_mode=hdpo_derived"))
    assert (hdpo.topk, hdpo.teacher, hdpo.divergence.kind, hdpo.divergence.beta) == (64, "drifting", "jsd", 0.5)


def test_yaml_and_dataclass_have_the_same_fields() -> None:
    node = OmegaConf.to_container(OmegaConf.load(CONFIG / "hdpo/default.yaml"))
    for cls, part in (
        (HDPOConfig, node),
        (DivergenceConfig, node["divergence"]),
        (PrivilegedConfig, node["privileged"]),
        (Gate, node["privileged"]["gate"]),
    ):
        assert {f.name for f in dataclasses.fields(cls)} == set(part)
        assert all(f.default is dataclasses.MISSING for f in dataclasses.fields(cls))


@pytest.mark.parametrize("path", sorted(CONFIG.rglob("*.yaml")), ids=lambda p: p.name)
def test_every_yaml_field_has_a_comment_above_and_none_beside(path: Path) -> None:
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        field = re.match(r"^( *)(- )?[\w@/]+:? ?(.*)$", line)
        if not field or line.lstrip().startswith("#"):
            continue
        assert " #" not in line, f"line {number + 1} has an inline comment"
        if path.name == "default.yaml" and field[3] and not field[2]:
            assert lines[number - 1].lstrip().startswith("#"), f"line {number + 1} has no comment above it"


REFUSED = {
    "actor_rollout_ref.actor.fsdp_config.pad_to_length=true": "pad_to_length",
    "algorithm.filter_groups.enable=true": "every cliff",
    "actor_rollout_ref.rollout.agent.default_agent_loop=my_agent": "verl knows the agent loops",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class=null": "never re-issues cliffs",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class=json.JSONDecoder": "or a class derived from it",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class=nowhere.Manager": "cannot be imported as a class",
    "actor_rollout_ref.actor.strategy=megatron": "FSDP",
    "actor_rollout_ref.actor.policy_loss.loss_mode=bypass_mode": "privileged rows alone",
    "actor_rollout_ref.rollout.name=trtllm": "down to nothing",
    "skip.rollout_tq.enable=true": "have none",
    "trainer.v1.trainer_mode=separate_async": "a trainer without HDPO",
    "trainer.v1.trainer_mode=colocate_async": "or set it to hdpo_colocate_async",
    "hdpo.reinjection_delay=-1": "reinjection_delay=-1 must be 0",
    "hdpo.reinjection_share=0": "reinjection_share=0.0 must be a share of a batch",
    "hdpo.max_staleness=-1": "max_staleness=-1 must be null",
    "trainer.use_v1=false": "use_v1=true",
    "reward.reward_model.enable=true": "too late",
    "distillation.enabled=true": "HDPO's",
    "hdpo.distillation_loss_coef=-0.1": "must be 0 or more",
    "hdpo.distillation_loss_schedule=up": "constant, linear, cosine, cliff_rate",
    "hdpo.topk=0": "hdpo.topk=0",
    "hdpo.teacher=best": "drifting, frozen, ema, mixed",
    "hdpo.ema_decay=1.1": "ema_decay=1.1 must lie between 0",
    "hdpo.mixed_weight=-0.1": "mixed_weight=-0.1 must lie between 0",
    "hdpo.divergence.kind=l2": "jsd, forward_kl, reverse_kl",
    "hdpo.divergence.beta=1.0": "forward_kl or reverse_kl",
    "hdpo.divergence.chunk_size=0": "chunk_size=0",
    "hdpo.divergence.clip=0": "clip=0.0 must be null or above 0",
    "hdpo.divergence.entropy_damping=-1": "entropy_damping=-1.0 must be 0",
    "hdpo.divergence.reliance_damping=-1": "reliance_damping=-1.0 must be 0",
    "actor_rollout_ref.rollout.n=1": "set it to 2 or more",
    "hdpo.adv_estimator=grpo": "must be hdpo, or null",
    "critic.enable=true": "reads none",
    "actor_rollout_ref.rollout.name=hf": "no engine",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=3": "engine of 3 accelerators does not divide the 8",
    "hdpo.privileged.n=-1": "hdpo.privileged.n=-1",
    "hdpo.privileged.n=1.5": "must be of type int",
    "hdpo.privileged.source=hint": "solution, answer, problem",
    "hdpo.privileged.source=problem": "nothing to distill",
    "hdpo.privileged.source=prefix": "hdpo.privileged.source='prefix' needs a share",
    "hdpo.privileged.source=prefix:1": "strictly between 0 and 1, such as prefix:0.5",
    "hdpo.privileged.source=[]": "source=[] shows nothing",
    "hdpo.privileged.source=[answer,hint]": "solution, answer, problem",
    "hdpo.privileged.source=[answer,3]": "3 must be of type str",
    "hdpo.privileged.source=[solution,problem]": "problem shows nothing, so it is no rung",
    "hdpo.privileged.source=[answer,answer]": "each rung of a ladder stands there once",
    "hdpo.privileged.source=[answer,prefix:0.5,solution]": "has 3 rungs, and hdpo.privileged.n=1",
    "hdpo.privileged.source=3": "must be of type str or list",
    "hdpo.privileged.feedback_template='{{ problem }} {{ attempt }}'": "shows no {{ feedback }}",
    "hdpo.privileged.feedback_template='{{ problem }} {{ feedback }} {{ solution }}'": "uses solution, which nothing",
    "hdpo.privileged.template='{{ problem }} {{ solution }} {{ attempt }}'": "uses attempt, which nothing",
    "hdpo.privileged.keep=some": "correct, all",
    "hdpo.privileged.use=drop": "distill, replace",
    "hdpo.collapse_warning=1.0": "fraction below 1",
    "hdpo.rollout_seed=0.5": "must be of type int or null",
    "hdpo.privileged.placement=assistant": "user, system",
    "hdpo.privileged.schedule=never": "same_step, next_step",
    "hdpo.privileged.template=no": "nothing would be privileged",
    "hdpo.privileged.max_prompt_length=100": "no more than plain ones",
    "hdpo.privileged.max_prompt_length=2000": "leaves no full response",
    "actor_rollout_ref.rollout.max_model_len=1024": "max_model_len",
    "hdpo.gradient_ratio_interval=-1": "gradient_ratio_interval",
    "hdpo.poll_interval=0": "poll_interval",
    "hdpo.max_lost_rollouts=1.5": "max_lost_rollouts=1.5 must be a share",
    "hdpo.max_lost_rollouts=nan": "max_lost_rollouts=nan must be a finite number",
    "hdpo.privileged.keep_truncated=1": "must be of type bool",
    "hdpo.privileged.join_texts=yes": "must be of type bool",
    "hdpo.privileged.chat_template_kwargs=3": "must be of type dict",
    'hdpo.privileged.template="{{ problem }}\\n{{ solution }}"': "a backslash and an n, not a line break",
    "hdpo.privileged.gate.speaks=1": "must be of type bool",
    "hdpo.privileged.gate.run_share=1": "gate.run_share=1.0 must be null (off) or a share below 1",
    "hdpo.privileged.gate.length_share=0": "gate.length_share=0.0 must be null (off) or above 0",
    "hdpo.privileged.gate.steps=1.5": "gate.steps=1.5 must be null (off) or a share above 0",
    "hdpo.privileged.gate.no_steps=-1": "gate.no_steps=-1.0 must be a share from 0 to 1",
    "hdpo.privileged.gate.reliance=0.5": "nearly always less likely without the solution",
    "hdpo.privileged.gate.steps=0.5": "without a check of steps",
    "hdpo.privileged.gate=null": "must be a group of keys",
    "hdpo.privileged.phrases=/no/such/file": "the file of phrases cannot be read",
    "hdpo.privileged.step_check=no_such_module.check": "no_such_module.check cannot be imported: ModuleNotFound",
    "hdpo.privileged.step_check=recipe.hdpo.step_check.KEY": "is a str, not a function",
    "+hdpo.typo=1": "typo",
    "~hdpo.topk": "lacks ['topk']",
    "~hdpo": "no `hdpo` node",
}


@pytest.mark.parametrize(("override", "said"), REFUSED.items(), ids=REFUSED.keys())
def test_bad_combinations_are_refused_with_value_reason_and_way_out(override: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        check_config(composed(override))
    assert said in str(error.value)


def test_cliffs_are_not_chosen_to_rest_before_the_gate_of_the_loss_has_decided() -> None:
    rest, gate = "hdpo.reinjection_delay=2", "hdpo.privileged.gate.reliance=-1"
    for each in (rest, gate):
        check_config(composed(each))
    with pytest.raises(ValueError, match="that gate decides in the loss"):
        check_config(composed(rest, gate))


def test_a_reward_model_that_nothing_wakes_is_refused() -> None:
    model = "reward.reward_model"
    own = (f"{model}.enable=true", f"{model}.enable_resource_pool=true")
    [message] = refusals(composed(*own))
    assert message.startswith(f"{model}.rollout.free_cache_engine=true (verl's default) puts the reward model to sleep")
    assert list(refusals(composed(*own, f"{model}.rollout.free_cache_engine=false"))) == []


def test_micro_batches_of_training_must_hold_a_privileged_prompt_that_is_trained_on() -> None:
    dynamic = "actor_rollout_ref.actor.use_dynamic_bsz=true"
    small = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1024"
    [message] = refusals(composed(dynamic, small, "+control=hint_grpo"))
    assert (
        "actor.ppo_max_token_len_per_gpu=1024, actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=1024" in message
    )
    with_kl = composed(dynamic, small, "+control=hint_grpo", "actor_rollout_ref.actor.use_kl_loss=true")
    assert "ref.log_prob_max_token_len_per_gpu=1024" in next(refusals(with_kl))
    # matched_grpo shows nothing, so its rows are as long as any.
    assert not list(refusals(composed(dynamic, small, "+control=matched_grpo")))


def test_a_budget_of_tokens_counts_once_for_each_rank_that_shares_a_sequence() -> None:
    """As verl's engine does; 2,048 tokens must fit."""
    budgets = [
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1024",
        "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=1000",
    ]
    sliced = "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2"
    settings = ("actor_rollout_ref.actor.use_dynamic_bsz=true", *budgets, sliced, "+control=hint_grpo")
    [message] = refusals(composed(*settings))
    assert message.startswith(f"{budgets[1]} x 2 (sequence parallel) is less than")
    assert not list(refusals(composed(*settings, budgets[1].replace("1000", "1024"))))


def test_sequence_parallelism_is_accepted_where_verl_patches_the_attention_and_refused_elsewhere() -> None:
    model, actor, ref = (f"actor_rollout_ref.{part}" for part in ("model", "actor", "ref"))
    older, size = f"{actor}.ulysses_sequence_parallel_size=2", f"{actor}.fsdp_config.ulysses_sequence_parallel_size=2"
    for setting in (older, size):
        for attention in ("flash_attention_2", "flash_attention_3"):
            assert not list(refusals(composed(setting, f"+{model}.override_config.attn_implementation={attention}")))
        assert not list(refusals(composed(setting)))  # verl's default
        for attention in ("sdpa", "eager", "flex_attention"):
            [message] = refusals(composed(setting, f"+{model}.override_config.attn_implementation={attention}"))
            assert f"attn_implementation={attention}" in message and "silently wrong" in message
        assert "silently wrong" in next(refusals(composed("+device=cpu", setting)))
        assert "cuts packed rows only" in next(refusals(composed(setting, f"{model}.use_remove_padding=false")))
    # verl hands the older key on to the reference model, and leaves it at 1 under the newer one.
    for setting in (older, size):
        assert not list(refusals(composed(setting, "hdpo.teacher=frozen")))
        third = f"{ref}.fsdp_config.ulysses_sequence_parallel_size=4"
        reference = f"{ref}.ulysses_sequence_parallel_size=1"
        assert "other tokens than the student's" in next(
            refusals(composed(setting, third, reference, "hdpo.teacher=frozen"))
        )
        assert not list(refusals(composed(setting, third, reference)))
    assert not list(refusals(composed(older, "hdpo.teacher=mixed")))
    assert "set the first to 2" in next(refusals(composed(size, "hdpo.teacher=mixed")))


def test_rollouts_of_the_plain_prompt_need_no_room_for_a_solution() -> None:
    context = "actor_rollout_ref.rollout.max_model_len=1024"
    assert "no more than plain ones" in next(refusals(composed(context)))
    assert not list(refusals(composed(context, "+control=matched_grpo")))


TP = f"{ROLLOUT}.tensor_model_parallel_size"


@pytest.mark.parametrize(
    ("hybrid", "training", "apart", "size", "there"),
    [
        ("false", 4, 8, 8, None),
        ("false", 8, 3, 2, "the 3 that there are (actor_rollout_ref.rollout.nnodes=1 x"),
        ("true", 4, 8, 8, "the 4 that there are (trainer.nnodes=1 x"),
        ("true", 8, 3, 2, "the 3 that there are (actor_rollout_ref.rollout.nnodes=1 x"),
        ("true", 8, 4, 4, None),
    ],
)
def test_engines_on_accelerators_of_their_own_have_to_divide_those(
    hybrid: str, training: int, apart: int, size: int, there: str | None
) -> None:
    settings = [f"actor_rollout_ref.hybrid_engine={hybrid}", f"trainer.n_gpus_per_node={training}", f"{TP}={size}"]
    settings += [f"{ROLLOUT}.nnodes=1", f"{ROLLOUT}.n_gpus_per_node={apart}"]
    found = list(refusals(composed("trainer.v1.trainer_mode=hdpo_separate_async", *settings)))
    assert found == [] if there is None else there in found[0]
    # Other trainers have the training's alone.
    assert (list(refusals(composed(*settings))) == []) == (training % size == 0)


def test_padding_is_refused_where_the_divergence_or_the_fused_head_meets_it() -> None:
    padded = "actor_rollout_ref.actor.pad_to_length=true"
    for nothing_distilled in ("+control=grpo", "+control=hint_grpo", "hdpo.distillation_loss_coef=0"):
        assert not list(refusals(composed(padded, nothing_distilled)))
        for fused in ("hdpo.fused_head=true", "actor_rollout_ref.model.use_fused_kernels=true"):
            [message] = refusals(composed(padded, nothing_distilled, fused))
            assert message.startswith("actor_rollout_ref.actor.fsdp_config.pad_to_length=true: the fused head")
    assert "a logits processor" in next(refusals(composed(padded)))


def test_an_engine_of_several_ranks_needs_processes_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    two = ("+device=cpu", "trainer.n_gpus_per_node=2", "actor_rollout_ref.rollout.tensor_model_parallel_size=2")
    backend = "actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend"
    assert f"set {backend}=mp" in next(refusals(composed(*two)))
    assert not list(refusals(composed(*two, f"{backend}=mp")))
    assert not list(refusals(composed(*two[:2])))
    # verl's own default names no executor.
    assert not list(refusals(composed("actor_rollout_ref.rollout.tensor_model_parallel_size=2")))


def test_bypass_mode_is_refused_wherever_kept_rows_join_mini_batches() -> None:
    bypass = "actor_rollout_ref.actor.policy_loss.loss_mode=bypass_mode"
    assert "privileged rows alone" in next(refusals(composed(bypass, "+control=sft")))
    assert not list(refusals(composed(bypass, "+control=hint_grpo")))


def test_the_frozen_teachers_own_needs_are_checked() -> None:
    frozen, ref = "hdpo.teacher=frozen", "actor_rollout_ref.ref"
    fixed = (frozen, "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4")
    assert f"{ref}.log_prob_micro_batch_size_per_gpu is not set" in next(refusals(composed(*fixed)))
    assert not list(refusals(composed(*fixed, f"{ref}.log_prob_micro_batch_size_per_gpu=4")))
    for setting, said in (
        ("ulysses_sequence_parallel_size=2", "other tokens than the student's"),
        ("fsdp_config.pad_to_length=true", "refuses"),
    ):
        assert said in next(refusals(composed(frozen, f"{ref}.{setting}")))
        assert not list(refusals(composed(f"{ref}.{setting}")))
    adapter = ("actor_rollout_ref.model.lora_adapter_path=/adapter", "actor_rollout_ref.model.lora_rank=8")
    assert "without that adapter" in next(refusals(composed(frozen, *adapter)))
    assert not list(refusals(composed(*adapter)))


def test_an_adapter_that_the_engine_would_pass_over_is_refused() -> None:
    model = "actor_rollout_ref.model"
    for key, setting in (
        ("lora_adapter_path", f"{model}.lora_adapter_path=/adapter"),
        ("lora.rank", f"{model}.lora.rank=8"),
    ):
        [message] = refusals(composed(setting))
        assert message.startswith(f"{model}.{key}=") and "lora_rank is 0" in message
        assert not list(refusals(composed(setting, f"{model}.lora_rank=8")))


def test_fsdp1_is_refused_on_a_cpu_for_every_model_whose_logits_are_read() -> None:
    actor, ref = (f"actor_rollout_ref.{model}.strategy=fsdp" for model in ("actor", "ref"))
    [message] = refusals(composed("+device=cpu", actor))
    assert message.startswith("actor_rollout_ref.actor.strategy=fsdp") and "use fsdp2" in message
    assert not list(refusals(composed(actor))) and not list(refusals(composed("+device=cpu", ref)))
    assert "actor_rollout_ref.ref.strategy" in next(refusals(composed("+device=cpu", ref, "hdpo.teacher=frozen")))


def test_a_mixed_teacher_needs_what_the_frozen_one_does_and_no_micro_batch_of_its_own() -> None:
    mixed, ref = "hdpo.teacher=mixed", "actor_rollout_ref.ref"
    assert not list(refusals(composed(mixed, "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4")))
    [message] = refusals(composed(mixed, f"+{ref}.fsdp_config.mixed_precision.param_dtype=fp32"))
    assert "would differ by rounding" in message
    assert "without that adapter" in next(
        refusals(composed(mixed, "actor_rollout_ref.model.lora_adapter_path=/adapter"))
    )
    assert not list(refusals(composed(mixed, "hdpo.divergence.reliance_damping=3.3")))


def test_weights_of_tokens_by_a_teacher_that_nobody_reads_are_refused() -> None:
    for knob in ("entropy_damping", "reliance_damping"):
        [message] = refusals(composed("+control=sft", f"hdpo.divergence.{knob}=1"))
        assert "hard labels read no teacher" in message
    assert not list(refusals(composed("+control=sft", "hdpo.divergence.clip=1")))


def test_an_average_of_quantized_weights_is_refused_where_the_average_teaches() -> None:
    quantized = "actor_rollout_ref.actor.fsdp_config.qat.enable=true"
    assert "scales of the actor's quantized weights" in next(refusals(composed("+control=ema", quantized)))
    assert not list(refusals(composed(quantized)))


def test_a_frozen_teacher_computes_in_the_students_precision() -> None:
    actor = "+actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32"
    ref = "+actor_rollout_ref.ref.fsdp_config.mixed_precision.param_dtype=fp32"
    [message] = refusals(composed("hdpo.teacher=frozen", actor))
    assert "is fp32 and" in message and "is bf16" in message
    assert not list(refusals(composed("hdpo.teacher=frozen", actor, ref)))
    assert not list(refusals(composed(actor)))
    # another name of verl's default
    assert not list(refusals(composed("hdpo.teacher=frozen", actor.replace("fp32", "bfloat16"))))


def test_losses_that_depend_on_how_a_mini_batch_is_cut_are_refused_where_kept_rows_change_the_cut() -> None:
    dynamic, actor = "actor_rollout_ref.actor.use_dynamic_bsz=true", "actor_rollout_ref.actor"
    budgets = [
        f"{actor}.ppo_max_token_len_per_gpu=4096",
        "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=4096",
    ]
    for setting, said in (
        (f"{actor}.policy_loss.loss_mode=geo_mean", "mean over each micro-batch"),
        (f"{actor}.policy_loss.loss_mode=clip_cov", "picks tokens in each micro-batch"),
        (f"{actor}.policy_loss.loss_mode=kl_cov", "picks tokens in each micro-batch"),
        (f"{actor}.loss_agg_mode=seq-mean-token-sum-norm", "loss_scale_factor"),
    ):
        [message] = refusals(composed(dynamic, *budgets, setting))
        assert said in message
        assert not list(refusals(composed(setting)))
        assert not list(refusals(composed(dynamic, *budgets, setting, "+control=grpo")))
    scaled = [f"{actor}.loss_agg_mode=seq-mean-token-sum-norm", f"{actor}.loss_scale_factor=1024"]
    assert not list(refusals(composed(dynamic, *budgets, *scaled)))


def test_rollout_seeds_are_refused_for_an_engine_that_names_them_otherwise() -> None:
    sglang = "actor_rollout_ref.rollout.name=sglang"
    assert "is vLLM's, not sglang's" in next(refusals(composed(sglang, "hdpo.rollout_seed=1")))
    assert not list(refusals(composed(sglang)))


def test_a_position_that_sglangs_server_leaves_free_is_no_room_for_a_response() -> None:
    lengths = ("data.max_response_length=1024", "hdpo.privileged.max_prompt_length=1024")
    assert not list(refusals(composed(*lengths)))
    [message] = refusals(composed(*lengths, "actor_rollout_ref.rollout.name=sglang"))
    assert "leaves no full response" in message and "minus data.max_response_length=1024 and 1 position" in message


def test_only_the_recipes_rollout_hook_can_do_what_rollout_knobs_ask_for() -> None:
    other = ["actor_rollout_ref.rollout.agent.agent_loop_manager_class=null", "hdpo.privileged.n=0"]
    assert not list(refusals(composed(*other)))
    samples = f"{ROLLOUT}.val_kwargs.temperature=1.0"
    [message] = refusals(composed(*other, "hdpo.rollout_seed=1", "hdpo.validate_greedy=true", samples))
    assert "hdpo.rollout_seed=1, hdpo.validate_greedy=true" in message


@pytest.mark.parametrize("do_sample", ["true", "false"])
def test_a_greedy_response_in_validation_wants_samples_beside_it_that_are_none(do_sample: str) -> None:
    greedy = ["hdpo.validate_greedy=true", f"{ROLLOUT}.val_kwargs.do_sample={do_sample}"]
    [message] = refusals(composed(*greedy))
    assert f"set {ROLLOUT}.val_kwargs.temperature=1.0" in message
    assert not list(refusals(composed(*greedy, f"{ROLLOUT}.val_kwargs.temperature=0.6")))
    assert not list(refusals(composed("hdpo.validate_greedy=false")))


def test_failures_are_never_replaced_by_failures_nor_all_of_them_replaced() -> None:
    replace = "hdpo.privileged.use=replace"
    [message] = refusals(composed(replace, "hdpo.privileged.keep=all"))
    assert "keep=correct" in message
    [message] = refusals(composed(replace, "hdpo.privileged.n=16"))
    assert "all 16 rollouts" in message
    assert not list(refusals(composed(replace, "hdpo.privileged.n=15")))


CONTROLS = {
    "grpo": {"privileged.n": 0},
    "matched_grpo": {"privileged.source": "problem", "privileged.use": "replace"},
    "hint_grpo": {"privileged.use": "replace"},
    "no_filter": {"privileged.keep": "all"},
    "forward_kl": {"divergence.kind": "forward_kl"},
    "reverse_kl": {"divergence.kind": "reverse_kl"},
    "sft": {"divergence.kind": "cross_entropy"},
    "frozen": {"teacher": "frozen"},
    "ema": {"teacher": "ema"},
    "answer_only": {"privileged.source": "answer"},
    "reinject": {"reinjection_delay": 20},
    "sharpen": {"distillation_loss_schedule": "cosine"},
    "feedback": {"privileged.source": "feedback"},
    "ladder": {"privileged.source": ["prefix:0.5", "solution"], "privileged.n": 2},
    "step_gate": {"privileged.step_check": "recipe.hdpo.step_check.arithmetic_to_answer", "privileged.gate.steps": 1.0},
    "low_effort": {"privileged.chat_template_kwargs": {"reasoning_effort": "low"}},
}


@pytest.mark.slow
def test_every_control_is_one_flag_and_changes_what_it_says_and_nothing_else() -> None:
    assert {path.stem for path in (CONFIG / "control").glob("*.yaml")} == set(CONTROLS)
    plain = composed()
    for name, changes in CONTROLS.items():
        config = hydra_composed(*NEEDED, f"+control={name}")
        assert config == composed(f"+control={name}")
        check_config(config)
        expected = OmegaConf.merge(plain, {})
        for key, value in changes.items():
            OmegaConf.update(expected, f"hdpo.{key}", value, force_add=True)
        assert config == expected, name


def test_every_control_says_what_it_costs() -> None:
    for path in (CONFIG / "control").glob("*.yaml"):
        comment = path.read_text().split("hdpo:")[0].lower()
        assert "cost" in comment or "as many rollouts" in comment or "without its teacher" in comment, path.name


def test_topk_above_the_vocabulary_of_a_local_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 63}))
    [message] = refusals(composed(f"actor_rollout_ref.model.path={tmp_path}"))
    assert "hdpo.topk=64" in message and "63" in message
    assert not list(refusals(composed(f"actor_rollout_ref.model.path={tmp_path}", "hdpo.topk=63")))


def test_the_cpu_device_without_verls_cpu_platform_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    assert not list(refusals(composed("+device=cpu")))
    monkeypatch.delenv("VERL_PLATFORM")
    assert "set VERL_PLATFORM=cpu" in next(refusals(composed("+device=cpu")))
    assert not list(refusals(composed()))


def test_another_verl_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipe.hdpo.config.rules.VERL_VERSION", "9.9.9")
    assert "verl 0.9.1 is installed" in next(refusals(composed()))


def test_another_verl_is_named_before_its_modules_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> list[str]:
        raise ModuleNotFoundError("No module named 'verl.trainer.ppo.v1'")

    monkeypatch.setattr("recipe.hdpo.config.rules.VERL_VERSION", "9.9.9")
    monkeypatch.setattr("recipe.hdpo.config.checks.missing_registrations", missing)
    with pytest.raises(SystemExit, match=r"verl 0\.9\.1 is installed"):
        ConfigCheckCallback().on_run_start(composed())


def test_all_problems_are_reported_at_once() -> None:
    config = composed("algorithm.filter_groups.enable=true", "skip.rollout_tq.enable=true")
    assert len(list(refusals(config))) == 2
    assert len(RULES) == len(set(RULES))


def test_knobs_without_the_trainer_stop_before_ray_in_a_launch_that_has_no_callback(
    with_plugin: dict[str, str],
) -> None:
    said = with_plugin["knobs alone"]
    assert "stopped: the config has hdpo.* keys, but trainer.v1.trainer_mode=sync" in said
    assert "Started a local Ray instance" not in said


def test_missing_data_model_and_accelerators_stop_the_launch_before_ray_all_at_once(
    with_plugin: dict[str, str],
) -> None:
    said = with_plugin["nothing there"]
    assert "stopped: HDPO cannot start here:" in said
    for key in ("data.train_files=/nowhere.parquet does not exist", "model.path=/nowhere does not exist"):
        assert key in said
    assert "trainer.n_gpus_per_node=8, and this machine has" in said
    assert "Started a local Ray instance" not in said


@pytest.mark.parametrize("way_in", WAYS_IN)
def test_stock_main_ppo_stops_before_ray_when_the_config_cannot_work(with_plugin: dict[str, str], way_in: str) -> None:
    said = with_plugin[way_in]
    assert "stopped: HDPO cannot run with this config" in said and "evicts groups of equal reward" in said
    assert "Started a local Ray instance" not in said


def test_each_job_of_a_sweep_is_checked_and_a_run_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "not_ready", lambda config: ())  # there is neither model nor data
    good, bad = composed(), composed("algorithm.filter_groups.enable=true")
    sweep, run = ConfigCheckCallback(), ConfigCheckCallback()
    sweep.on_multirun_start(config=bad)
    sweep.on_job_start(config=good, task_function=None)
    with pytest.raises(SystemExit, match="evicts groups of equal reward"):
        sweep.on_job_start(config=bad, task_function=None)
    run.on_run_start(config=good)
    run.on_job_start(config=bad, task_function=None)


def test_stock_main_ppo_stops_when_the_plug_in_was_not_loaded(without_plugin: dict[str, str]) -> None:
    said = without_plugin["recipe's config"]
    assert "stopped: verl does not know HDPO's advantage estimator 'hdpo', policy loss 'hdpo', trainer 'hdpo'" in said
    assert "pip install ." in said


def _own_config(*overrides: str, defaults: str, folder: Path) -> DictConfig:
    """A user's config with settings of its own, composed from a file."""
    from hydra import initialize_config_dir

    own = [
        f"defaults: [{defaults}]",
        "hydra: {searchpath: ['pkg://verl.trainer.config', 'pkg://recipe.hdpo.config']}",
        "algorithm: {use_kl_in_reward: true}",
        "actor_rollout_ref:",
        "  model: {path: /nowhere}",
        "  actor: {use_kl_loss: true}",
        "  rollout: {name: vllm, n: 8, temperature: 0.8, tensor_model_parallel_size: 4, max_model_len: 2048}",
    ]
    if "hdpo" in defaults:
        own.append("hdpo: {distillation_loss_coef: 0.3}")
    (folder / "mine.yaml").write_text("\n".join(own))
    with initialize_config_dir(str(folder), version_base=None):
        return compose("mine", overrides=list(overrides))


def test_switching_hdpo_on_in_a_config_of_ones_own_changes_nothing_else_in_it(tmp_path: Path) -> None:
    by_file = _own_config(defaults="ppo_trainer, hdpo: default, use: hdpo, _self_", folder=tmp_path)
    by_flags = _own_config("+hdpo=default", "+use=hdpo", defaults="ppo_trainer, _self_", folder=tmp_path)
    for config in (by_file, by_flags):
        rollout = config.actor_rollout_ref.rollout
        assert (rollout.n, rollout.temperature, rollout.tensor_model_parallel_size) == (8, 0.8, 4)
        assert config.actor_rollout_ref.actor.use_kl_loss and config.algorithm.use_kl_in_reward
        assert check_config(config).topk == 64
    assert (by_file.hdpo.distillation_loss_coef, by_flags.hdpo.distillation_loss_coef) == (0.3, 0.1)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("trainer.save_freq=5", "trainer.max_actor_ckpt_to_keep=1"), "trainer.max_actor_ckpt_to_keep=1"),
        (("trainer.save_freq=5", "+trainer.remove_previous_ckpt_in_save=true"), "remove_previous_ckpt_in_save=1"),
        (("trainer.save_freq=5", "trainer.max_actor_ckpt_to_keep=2"), None),
        (("trainer.save_freq=-1", "trainer.max_actor_ckpt_to_keep=1"), None),
    ],
    ids=str,
)
def test_keeping_one_checkpoint_is_warned_of_and_not_refused(
    overrides: tuple[str, ...],
    said: str | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "not_ready", lambda config: ())  # there is neither model nor data
    ConfigCheckCallback().on_run_start(composed(*overrides))
    assert (said is None) == ("deletes the old checkpoint" not in caplog.text)
    assert said is None or f"{said}: verl deletes the old checkpoint before the new one is whole" in caplog.text


@pytest.mark.parametrize("name", ["reward_timeout", "stall_timeout"])
def test_limits_in_seconds_are_0_or_more(name: str) -> None:
    assert getattr(check_config(composed(f"hdpo.{name}=0")), name) == 0.0
    with pytest.raises(ValueError, match=f"hdpo.{name}=-1.0 must be 0"):
        check_config(composed(f"hdpo.{name}=-1"))


def test_gates_that_have_nothing_to_judge_are_refused() -> None:
    shown_nothing = ("hdpo.privileged.source=problem", "hdpo.privileged.use=replace")
    for gate in ("speaks=true", "run_share=0.5", "length_share=0.5"):
        [message] = refusals(composed(*shown_nothing, f"hdpo.privileged.gate.{gate}"))
        assert f"gate.{gate.partition('=')[0]} with source=problem: nothing is shown" in message
    for control in ("sft", "hint_grpo", "grpo"):
        [message] = refusals(composed(f"+control={control}", "hdpo.privileged.gate.reliance=-1"))
        assert "distilled from a teacher, and here none is" in message
    for accepted in ("hdpo.teacher=mixed", "hdpo.teacher=frozen", "+control=answer_only"):
        assert not list(refusals(composed(accepted, "hdpo.privileged.gate.reliance=-1")))


def test_the_step_gate_is_one_flag_and_asks_for_valid_steps_alone() -> None:
    hdpo = check_config(composed("+control=step_gate"))
    assert hdpo.privileged.gate.asks == ["steps"] and hdpo.privileged.gate.steps == 1.0
    assert hdpo.privileged.step_check == "recipe.hdpo.step_check.arithmetic_to_answer"
    assert check_config(composed()).privileged.gate.asks == []
