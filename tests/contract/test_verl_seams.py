"""Every seam of verl 0.9.1 that the recipe stands on. A new verl that moves one fails here, and says which.

Each test names who depends on the seam.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


def parameters(function: Callable) -> list[str]:
    names = list(inspect.signature(inspect.unwrap(function)).parameters)
    return [name for name in names if name != "_ray_trace_ctx"]  # added by ray.remote


def test_advantage_estimators_are_called_by_keyword_with_uids_as_index() -> None:
    """recipe.hdpo.algorithm.advantage"""
    from verl.trainer.ppo import core_algos, ray_trainer

    from recipe.hdpo.algorithm.advantage import compute_hdpo_advantage

    assert parameters(core_algos.register_adv_est) == ["name_or_enum"]
    assert core_algos.get_adv_estimator_fn("hdpo") is compute_hdpo_advantage
    source = inspect.getsource(ray_trainer.compute_advantage)
    assert 'adv_kwargs["index"] = data.non_tensor_batch["uid"]' in source
    for name in ("token_level_rewards", "response_mask", "config"):
        assert f'"{name}": ' in source


def test_the_policy_loss_is_looked_up_by_loss_mode_when_it_is_computed() -> None:
    """recipe.hdpo.training.policy_loss"""
    from verl.trainer.ppo import core_algos
    from verl.workers.utils import losses

    from recipe.hdpo.training.policy_loss import refuse_policy_loss

    assert core_algos.get_policy_loss_fn("hdpo") is refuse_policy_loss
    assert core_algos.get_policy_loss_fn("vanilla") is core_algos.compute_policy_loss_vanilla
    source = inspect.getsource(losses.ppo_loss)
    assert 'config.policy_loss.get("loss_mode"' in source and "get_policy_loss_fn(loss_mode)" in source


def test_ppo_loss_selects_no_field_that_privileged_rows_lack() -> None:
    """recipe.hdpo.training.mini_batch.RESPONSE_FIELDS"""
    from verl.workers.utils import losses

    from recipe.hdpo.training import mini_batch

    assert parameters(losses.ppo_loss) == ["config", "model_output", "data", "dp_group"]
    source = inspect.getsource(losses.ppo_loss)
    assert 'fields = ["response_mask", "old_log_probs", "advantages"]' in source
    for name in ("rollout_is_weights", "ref_log_prob"):
        assert f'fields.append("{name}")' in source
    assert source.count("fields.append") == 2
    needed = {"response_mask", "old_log_probs", "advantages", "rollout_is_weights", "ref_log_prob"}
    assert needed <= set(mini_batch.RESPONSE_FIELDS)


def test_the_engine_calls_the_loss_function_twice_in_both_branches() -> None:
    """recipe.hdpo.training.loss, recipe.hdpo.training.teacher_pass"""
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    outputs = inspect.getsource(FSDPEngineWithLMHead.prepare_model_outputs)
    assert outputs.count("logits_processor_func(student_logits=logits_rmpad.unsqueeze(0), data=micro_batch)") == 2
    assert outputs.count("if distillation_use_topk:") >= 2 and "if not distillation_only:" in outputs
    step = inspect.getsource(FSDPEngineWithLMHead.forward_step)
    assert "model_output=model_output, data=micro_batch, dp_group=" in step


def test_the_packed_branch_hands_out_an_in_place_backward_that_ours_must_survive() -> None:
    """recipe.hdpo.training.loss.log_prob_backward_overwrites_logits"""
    from verl.utils import torch_functional
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    assert hasattr(torch_functional, "FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE")
    assert "VERL_DISABLE_FLASH_ATTN_CE" in inspect.getsource(torch_functional.logprobs_from_logits)
    source = inspect.getsource(FSDPEngineWithLMHead.prepare_model_outputs)
    assert "inplace_backward = True" in source


def test_the_engine_keeps_the_methods_that_the_fused_head_replaces() -> None:
    """recipe.hdpo.training.fused_head"""
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine, FSDPEngineWithLMHead

    assert parameters(FSDPEngineWithLMHead.forward_step) == ["self", "micro_batch", "loss_function", "forward_only"]
    step = inspect.getsource(FSDPEngineWithLMHead.forward_step)
    # One call of each, through the engine, in this order, on the batch that was moved to the device.
    order = [
        "micro_batch = micro_batch.to(get_device_id())",
        "model_inputs, output_args = self.prepare_model_inputs(micro_batch=micro_batch)",
        "raw_output = self.module(",
        "model_output = self.prepare_model_outputs(",
        "loss, metrics = loss_function(",
    ]
    positions = [step.index(text) for text in order]
    assert positions == sorted(positions) and all(step.count(text) == 1 for text in order)
    assert "output=raw_output, output_args=output_args, micro_batch=micro_batch" in step
    assert parameters(FSDPEngineWithLMHead.prepare_model_inputs) == ["self", "micro_batch"]
    inputs = inspect.getsource(FSDPEngineWithLMHead.prepare_model_inputs)
    for name in ("pad_size", "input_ids_rmpad_rolled", "temperature_rmpad", "temperature"):
        assert f'output_args["{name}"] = ' in inputs
    assert 'output_args = {"temperature_is_one": temperature_is_one}' in inputs
    names = ["self", "output", "output_args", "micro_batch", "logits_processor_func"]
    assert parameters(FSDPEngineWithLMHead.prepare_model_outputs) == names
    outputs = inspect.getsource(FSDPEngineWithLMHead.prepare_model_outputs)
    # All that it may return, and what asks for it: the fused head makes or refuses each.
    for name in ("log_probs", "entropy", "sum_pi_squared"):
        assert f'model_output["{name}"] = {name}' in outputs
    read = set(re.findall(r'data=micro_batch, key="(\w+)"', outputs))
    asked = {"calculate_entropy", "calculate_sum_pi_squared", "distillation_use_topk", "distillation_only"}
    assert read == asked | {"use_remove_padding", "pad_mode", "use_fused_kernels"}
    assert parameters(FSDPEngine._gather_and_unpad_packed) == ["self", "tensor", "pad_size"]


def test_ulysses_pads_the_packed_tokens_at_their_end_and_cuts_even_slices_by_the_rank_in_the_group() -> None:
    """recipe.hdpo.training.token_slices; the rule ``sequence_parallel`` says that flash attention alone is patched."""
    from verl.models.transformers import monkey_patch
    from verl.utils import ulysses
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine
    from verl.workers.engine.utils import prepare_micro_batches

    padded, _, pad_size = ulysses.ulysses_pad(torch.arange(5)[None], None, sp_size=4)
    assert padded.tolist() == [[0, 1, 2, 3, 4, 0, 0, 0]] and pad_size == 3
    assert "slice(sp_rank * parts, (sp_rank + 1) * parts)" in inspect.getsource(ulysses.slice_input_tensor)
    assert "mesh_shape=(dp_size, self.ulysses_sequence_parallel_size)" in inspect.getsource(
        FSDPEngine._init_device_mesh
    )
    assert "max_token_len = max_token_len_per_gpu * sp_size" in inspect.getsource(prepare_micro_batches)
    patch = inspect.getsource(monkey_patch.apply_monkey_patch)
    assert "flash_attention._flash_attention_forward = _ulysses_flash_attention_forward" in patch
    assert "sdpa" not in patch


def test_the_engine_counts_tokens_by_loss_mask_over_all_ranks() -> None:
    """recipe.hdpo.training.mini_batch: privileged rows, whose loss mask is all 0, must not enter GRPO's denominator."""
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

    source = inspect.getsource(FSDPEngine.forward_backward_batch)
    assert 'data["loss_mask"].sum()' in source and "batch_num_tokens" in source and "dp_size" in source


def test_training_worker_keeps_the_methods_that_the_actor_extends() -> None:
    """recipe.hdpo.training.actor.HDPOActor"""
    from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

    assert parameters(TrainingWorker.train_mini_batch) == ["self", "data"]
    assert parameters(TrainingWorker.train_batch) == ["self", "data"]
    loop = inspect.getsource(TrainingWorker.train_mini_batch)
    assert "self.train_batch(mini_batch_td)" in loop and 'key="mini_batch_size"' in loop
    assert ActorRolloutRefWorker.actor_worker_cls is TrainingWorker
    update = inspect.getsource(ActorRolloutRefWorker.update_actor)
    assert "self.actor.train_mini_batch(data=data)" in update
    init = inspect.getsource(ActorRolloutRefWorker.init_model)
    assert "self.actor = self.actor_worker_cls(config=actor_training_config)" in init
    assert "self.loss_fn = partial(ppo_loss, config=actor_config)" in init


def test_trainer_keeps_the_methods_that_hdpo_overrides() -> None:
    """recipe.hdpo.training.trainer"""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer, register_trainer

    assert parameters(register_trainer) == ["name"]
    assert parameters(PPOTrainer._step_once) == ["self", "metrics", "timing_raw", "sample_batch_size"]
    assert parameters(PPOTrainer._balance_batch)[:3] == ["self", "batch", "metrics"]
    assert parameters(PPOTrainer._update_actor) == ["self", "batch", "metrics"]
    for name in (
        "_init_tokenizer",
        "_init_dataloader",
        "_init_resource_pool_mgr",
        "_save_checkpoint",
        "_load_checkpoint",
    ):
        assert parameters(getattr(PPOTrainer, name)) == ["self"]
    step = inspect.getsource(PPOTrainer._step_once)
    order = ["replay_buffer.sample", "_balance_batch", "_compute_old_log_prob", "_compute_advantage", "_update_actor"]
    positions = [step.index(name) for name in order]
    assert positions == sorted(positions)
    assert "batch.extra_info.update(extra_info)" in inspect.getsource(PPOTrainer._update_actor)
    assert "trainer_mode = self.config.trainer.v1.trainer_mode" in inspect.getsource(PPOTrainer.__init__)


def test_verls_data_set_reads_and_filters_as_the_start_up_checks_expect() -> None:
    """recipe.hdpo.training.whole_data and recipe.hdpo.data.checks; where the filter drops no row that it fails to read,
    the second reading can go."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from recipe.hdpo.data.checks import _VERLS_CLASS

    assert RLHFDataset.__module__ == _VERLS_CLASS
    assert parameters(RLHFDataset) == ["data_files", "tokenizer", "config", "processor", "max_samples"]
    source = inspect.getsource(RLHFDataset)
    assert 'config.get("filter_overlong_prompts", True)' in source
    assert "Error processing one of the samples, skipping..." in source
    assert "rngs_args = (self.seed,) if self.seed is not None else ()" in source
    assert 'row_dict.get("extra_info", {}).get("index", 0)' in source
    loader = inspect.getsource(PPOTrainer._init_dataloader)
    assert 'get("train_max_samples", -1)' in loader and 'get("val_max_samples", -1)' in loader


def test_a_steps_prompts_are_fetched_in_whole_batches_and_get_their_step() -> None:
    """recipe.hdpo.training.trainer_sync._next_train_batch does the rest."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer._next_train_batch)
    assert parameters(PPOTrainer._next_train_batch) == ["self", "num_prompts"]
    assert "self._fetch_one_gen_batch()" in source
    assert 'tu.assign_non_tensor_data(batch, "global_steps", self.global_steps)' in source
    assert "return tu.get_tensordict(batch_dict)" in inspect.getsource(PPOTrainer._fetch_one_gen_batch)


def test_a_rollout_that_has_a_score_is_not_scored_again() -> None:
    """recipe.hdpo.rollout.agent_loop._keep and .greedy_validation score a rollout before verl's post-processing."""
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    source = inspect.getsource(AgentLoopWorker._compute_score)
    assert "if final_output.reward_score is None and enable_async_reward:" in source
    assert 'extra_fields["reward_extra_info"]' in source


def test_validation_collects_the_rewards_extra_information_of_every_sample() -> None:
    """recipe.hdpo.rollout.greedy_validation.GREEDY_SCORE"""
    from verl.trainer.ppo.v1 import agent_loop_tq
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer._validate)
    assert 'extra_field.get("reward_extra_info", {})' in source
    assert "reward_extra_infos_dict[key].append(value)" in source
    assert parameters(agent_loop_tq.apply_greedy_sampling_params) == ["params"]


def test_reward_managers_take_all_that_a_reward_function_says_into_the_extra_information() -> None:
    """recipe.hdpo.algorithm.cliff.UNSCORED. verl's other batches take their keys from the first row's."""
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl.experimental.reward_loop.reward_manager import dapo, gdpo, limited, naive, remote

    managers = (
        naive.NaiveRewardManager,
        dapo.DAPORewardManager,
        gdpo.GDPORewardManager,
        remote.RemoteRewardManager,
        limited.RateLimitedRewardManager,
    )
    for manager in managers:
        source = inspect.getsource(manager.run_single)
        assert 'score = result["score"]' in source and "reward_extra_info[key] = value" in source
    assert "reward_extra_infos[0].keys()" in inspect.getsource(AgentLoopWorker._postprocess)


def test_validation_hands_uids_and_rewards_of_every_sample_to_one_method() -> None:
    """recipe.hdpo.training.trainer._val_metrics_update"""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    names = ["data_sources", "sample_uids", "reward_extra_infos_dict", "sample_turns", "expected_acc_counts"]
    assert parameters(PPOTrainer._val_metrics_update) == ["self", *names]
    assert 'reward_extra_infos_dict["reward"].extend(scores)' in inspect.getsource(PPOTrainer._validate)


def test_verl_marks_a_checkpoint_as_whole_after_everything_else() -> None:
    """recipe.hdpo.training.trainer._save_checkpoint writes the cliff history before."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer._save_checkpoint)
    assert source.index("actor_rollout_wg.save_checkpoint") < source.index("latest_checkpointed_iteration.txt")
    assert source.index("data.pt") < source.index('"latest_checkpointed_iteration.txt"')


def test_the_actor_saves_and_loads_its_own_files_in_the_actors_folder() -> None:
    """recipe.hdpo.training.actor: the average of past weights is written beside verl's files."""
    from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

    for name in ("save_checkpoint", "load_checkpoint"):
        assert parameters(getattr(TrainingWorker, name))[:2] == ["self", "local_path"]
        assert f"self.actor.{name}(local_path, " in inspect.getsource(getattr(ActorRolloutRefWorker, name))


def test_weights_are_on_the_device_inside_the_engines_evaluation_mode_and_gathered_ones_can_be_given_up() -> None:
    """recipe.hdpo.training.weight_average.local_shards"""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.fsdp._flat_param import FlatParamHandle
    from verl.utils import fsdp_utils
    from verl.workers.engine.base import BaseEngineCtx

    assert "model=self.engine.is_param_offload_enabled" in inspect.getsource(BaseEngineCtx._context_switch)
    assert parameters(FSDPModule.reshard) == ["self"]
    # As verl does itself before it moves FSDP1's shards.
    source = inspect.getsource(fsdp_utils.load_fsdp_model_to_gpu)
    assert "_lazy_init(model, model)" in source and "for handle in model._all_handles:" in source
    assert parameters(FlatParamHandle.reshard) == ["self", "free_unsharded_flat_param"]
    assert hasattr(FlatParamHandle, "uses_sharded_strategy")


def test_fsdp2_notes_once_at_its_first_forward_which_weights_are_trained() -> None:
    """recipe.hdpo.training.teachers._without_adapter"""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup
    from torch.distributed.fsdp._fully_shard._fsdp_state import FSDPState

    assert "if self._is_root is not None:\n            return" in inspect.getsource(FSDPState._lazy_init)
    assert "self._lazy_init()" in inspect.getsource(FSDPState._root_pre_forward)
    assert "if p.sharded_param.requires_grad" in inspect.getsource(FSDPParamGroup._init_mp_dtypes)
    assert "FSDPState" in inspect.getsource(FSDPModule._get_fsdp_state)


def test_an_inference_pass_has_micro_batches_of_its_own() -> None:
    """recipe.hdpo.training.teacher_pass.assign_engine_settings"""
    from verl.workers.engine_workers import ActorRolloutRefWorker

    source = " ".join(inspect.getsource(ActorRolloutRefWorker.init_model).split())
    for size in ("infer_max_token_len_per_gpu", "infer_micro_batch_size_per_gpu"):
        key = size.replace("infer_", "")
        assert f"actor_training_config.engine_config.{size} = ( self.config.rollout.log_prob_{key} )" in source
        assert f"ref_training_config.engine_config.{size} = " in source and f"self.config.ref.ppo_{key}" in source


def test_one_micro_batch_can_be_run_through_another_model() -> None:
    """recipe.hdpo.training.mixed_teacher"""
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    assert parameters(FSDPEngineWithLMHead.forward_step) == ["self", "micro_batch", "loss_function", "forward_only"]


def test_a_ranks_checkpoint_files_have_these_names_and_are_written_by_torch_save() -> None:
    """recipe.hdpo.training.checkpoints.shards"""
    from verl.utils.checkpoint.checkpoint_manager import BaseCheckpointManager, find_latest_ckpt_path
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    from recipe.hdpo.training.checkpoints import FILES

    save = inspect.getsource(FSDPCheckpointManager.save_checkpoint)
    load = inspect.getsource(FSDPCheckpointManager.load_checkpoint)
    for name in FILES.values():
        file = f'f"{name}_world_size_{{self.world_size}}_rank_{{self.rank}}.pt"'
        assert file in save and file in load
    assert save.count("torch.save(") == len(FILES)
    for kind in FILES:
        assert f'"{kind}" in self.checkpoint_load_contents' in inspect.getsource(BaseCheckpointManager)
    assert "os.path.join(path, directory_format.format(iteration))" in inspect.getsource(find_latest_ckpt_path)


def test_verl_resumes_by_these_settings_and_forgets_what_it_resumed_from() -> None:
    """recipe.hdpo.training.checkpoints.resuming_from, .delete_in_turn"""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.utils.checkpoint.checkpoint_manager import BaseCheckpointManager
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    load = inspect.getsource(PPOTrainer._load_checkpoint)
    assert 'resume_mode == "resume_path"' in load and "= self.config.trainer.resume_from_path" in load
    assert "previous_saved_paths" not in inspect.getsource(FSDPCheckpointManager)
    assert inspect.getsource(BaseCheckpointManager).count("self.previous_saved_paths = []") == 1
    save = inspect.getsource(PPOTrainer._save_checkpoint)
    assert 'os.path.join(local_global_step_folder, "actor")' in save and "str(Role.Critic)" in save


def test_what_verls_trainer_waits_in_can_be_watched() -> None:
    """recipe.hdpo.training.watchdog"""
    import ray.actor
    from verl.experimental.agent_loop import AgentLoopManager
    from verl.experimental.reward_loop import RewardLoopManager
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.workers.rollout.llm_server import LLMServerManager
    from verl.workers.rollout.replica import RolloutReplica
    from vllm.v1.engine.async_llm import AsyncLLM

    assert parameters(PPOTrainer.init) == ["self"] and parameters(PPOTrainer.fit) == ["self", "agent_loop_manager"]
    assert parameters(ReplayBuffer._wait_for_next_poll) == ["self", "partition_id", "last_debug_time"]
    assert "self._wait_for_next_poll(partition_id, last_debug_time)" in inspect.getsource(ReplayBuffer.sample)
    # recipe.hdpo.training.lost_samples
    assert parameters(ReplayBuffer.sample) == ["self", "global_steps", "partition_id", "batch_size"]
    fit = inspect.getsource(PPOTrainer.fit)
    assert "self.agent_loop_manager = agent_loop_manager" in fit and "self.timing_raw = {}" in fit
    assert "self.agent_loop_workers.append(" in inspect.getsource(AgentLoopManager._init_agent_loop_workers)
    assert "self.reward_loop_workers = []" in inspect.getsource(RewardLoopManager._init_reward_loop_workers)
    assert "self.global_load_balancer" in inspect.getsource(LLMServerManager._init_global_load_balancer)
    assert parameters(LLMServerManager.get_replicas) == ["self"]
    assert "self.servers: list[ActorHandle]" in inspect.getsource(RolloutReplica.__init__)
    assert "engine_dead" in inspect.getsource(AsyncLLM.errored.fget)
    source = inspect.getsource(ray.actor)
    assert "def __ray_ready__(self)" in source and "def __ray_call__(" in source


def test_transfer_queue_has_fixed_names_and_its_maker_alone_knows_the_storage_units() -> None:
    """recipe.hdpo.training.shared_queue"""
    from transfer_queue import interface

    attach, make = inspect.getsource(interface._init_from_existing), inspect.getsource(interface.init)
    assert 'ray.get_actor("TransferQueueController", namespace="transfer_queue")' in attach
    assert "_TQ_STORAGE" not in attach and "_maybe_create_tq_storage(final_conf)" in make
    assert "_TQ_STORAGE = {}" in inspect.getsource(interface._maybe_create_tq_storage)
    assert "ray.kill(_TQ_CONTROLLER)" in inspect.getsource(interface.close)


def test_the_agent_loop_worker_publishes_finished_after_all_sessions() -> None:
    """recipe.hdpo.rollout.agent_loop: privileged rows must be written before the group is finished."""
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

    worker = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    assert parameters(worker._run_prompt) == ["self", "prompt", "sampling_params", "trajectory", "trace"]
    run = inspect.getsource(inspect.unwrap(worker._run_prompt))
    assert run.index("_settle_session_tasks(tasks)") < run.index('status = "finished"')
    assert "session_id=i, **prompt" in run and '"__rollout_n__"' in run
    post = inspect.getsource(inspect.unwrap(worker._agent_loop_postprocess))
    assert 'f"{uid}_{session_id}_{i}"' in post and "self._compute_score(outputs, kwargs=kwargs)" in post
    init = inspect.getsource(AgentLoopManagerTQ.__init__)
    assert "self.agent_loop_workers_class = AgentLoopWorkerTQ" in init


def test_the_base_agent_loop_worker_runs_postprocess_with_all_its_arguments() -> None:
    """recipe.hdpo.rollout.agent_loop passes a marker through."""
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopWorker

    run = inspect.getsource(inspect.unwrap(AgentLoopWorker._run_agent_loop))
    assert 'self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)' in run
    assert "agent_loop.run(sampling_params, **kwargs)" in run
    assert parameters(AgentLoopWorker._compute_score) == ["self", "outputs", "kwargs"]
    assert "self._cap_text_prompt_length(prompt_ids)" in inspect.getsource(AgentLoopBase.ct_build_initial_tokens)


def test_the_vllm_server_takes_max_tokens_from_the_sampling_parameters() -> None:
    """recipe.hdpo.rollout.agent_loop: without it a long privileged prompt would silently get a short response."""
    from verl.workers.rollout.vllm_rollout import vllm_async_server

    source = inspect.getsource(vllm_async_server)
    assert 'if "max_tokens" in sampling_params:' in source


def test_the_replay_buffer_finds_a_groups_rows_by_the_key_before_the_first_underscore() -> None:
    """recipe.hdpo.transfer.row_key, record_key; recipe.hdpo.training.trainer sets poll_interval"""
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    from recipe.hdpo import transfer

    assert 'key.split("_")[0]' in inspect.getsource(ReplayBuffer._materialize_batch)
    assert "self.poll_interval" in inspect.getsource(ReplayBuffer._wait_for_next_poll)
    for key in (transfer.row_key("uid-1", 7), transfer.record_key("uid-1")):
        assert key.split("_")[0] == "uid-1" and len(key.rsplit("_", 2)) == 3


def test_transfer_queue_data_can_be_read_by_key_inside_a_worker() -> None:
    """recipe.hdpo.training.actor._fetch_columns"""
    from verl.utils.transferqueue_utils import KVBatchMeta, _meta_to_realdata

    assert parameters(_meta_to_realdata) == ["meta"]
    assert {"keys", "tags", "partition_id", "fields", "extra_info"} <= set(parameters(KVBatchMeta))


def test_a_worker_can_put_a_further_field_beside_those_of_a_key_without_its_tag() -> None:
    """recipe.hdpo.training.actor._put_records"""
    import transfer_queue as tq
    from transfer_queue.interface import async_kv_batch_put

    assert {"keys", "partition_id", "fields", "tags"} <= set(parameters(tq.kv_batch_put))
    put = inspect.getsource(async_kv_batch_put)
    # Keys that are there keep their place, and tags that are not given are left as they are.
    assert "create=True" in put and "if tags is not None:" in put


def test_verl_dumps_rollouts_under_their_keys() -> None:
    """recipe.hdpo.cliffs.files"""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    dump = inspect.getsource(PPOTrainer._log_rollout_data)
    assert '{"uid": [batch.keys[i] for i in sorted_indices]}' in dump
    write = inspect.getsource(PPOTrainer._write_generations)
    assert all(f'"{name}": ' in write for name in ("input", "output", "gts", "score", "step"))
    assert 'f"{global_steps}.jsonl"' in write


@pytest.mark.parametrize("name", ["initialize_global_process_group_ray"])
def test_the_process_group_can_be_made_with_a_backend_of_choice(name: str) -> None:
    """recipe.hdpo.cpu.verl_patches"""
    from verl.utils import distributed

    function = getattr(distributed, name)
    function = getattr(function, "func", function)
    assert "backend" in parameters(function)


def test_the_fsdp_engine_takes_its_offload_policy_from_its_module() -> None:
    """recipe.hdpo.cpu.verl_patches"""
    from verl.workers.engine.fsdp import transformer_impl

    assert "offload_policy = CPUOffloadPolicy(pin_memory=True)" in inspect.getsource(
        transformer_impl.FSDPEngine._build_fsdp_module
    )


def test_vllm_asks_its_utils_module_for_the_cpu_linear_kernel() -> None:
    """recipe.hdpo.cpu.vllm_patches"""
    from vllm.model_executor.layers import linear, utils

    assert parameters(utils.dispatch_cpu_unquantized_gemm)[:2] == ["layer", "remove_weight"]
    assert "from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm" in inspect.getsource(linear)


@pytest.mark.parametrize("with_record", [False, True])
def test_the_replay_buffer_refills_a_failed_group_only_where_no_key_begins_with_its_uid(
    monkeypatch: pytest.MonkeyPatch, with_record: bool
) -> None:
    """Why the hook leaves no record of such a group (recipe/hdpo/rollout/agent_loop.py)."""
    import transfer_queue as tq
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    from recipe.hdpo import transfer
    from recipe.hdpo.algorithm.cliff import GroupRecord

    sizes = {"train_batch_size": 1, "gen_batch_size": 1}
    buffer = ReplayBuffer(
        "sync", {}, None, "drop", {}, refill_fn=lambda n: None, sync_refill_failed_groups=True, **sizes
    )
    items = {"u1": {"is_prompt": True, "status": "failure", "global_steps": 1}}
    if with_record:
        items[transfer.record_key("u1")] = transfer.record_tag(
            GroupRecord("p", cliff=False, solved=False, lost_rollouts=4)
        )
    monkeypatch.setattr(tq, "kv_list", lambda *_, **__: {"train": items})
    buffer._sync_metadata_from_transfer_queue()
    _, _, failed, _ = buffer._terminal_eviction_reasons(1, "train")
    assert failed == (set() if with_record else {"u1"})


def test_verl_cuts_a_plain_prompt_to_the_limit_from_the_left_and_makes_it_with_a_token_builder() -> None:
    """recipe.hdpo.rollout.scoring._prompt_was_cut, recipe.hdpo.rollout.chat_template.make_token_builder"""
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase

    assert "return prompt_ids[-prompt_length:]" in inspect.getsource(AgentLoopBase._cap_text_prompt_length)
    assert "continuous_token_builder.build_initial_tokens(" in inspect.getsource(AgentLoopBase.ct_build_initial_tokens)
    source = inspect.getsource(AgentLoopBase.__init__)
    arguments = source.partition("create_continuous_token_builder(")[2].partition(")")[0].split()
    assert arguments == [
        "self.tokenizer,",
        "hf_model_type=hf_model_type,",
        "chat_template_kwargs=self.apply_chat_template_kwargs,",
        "mm_processor_kwargs=self.mm_processor_kwargs,",
        "processor=self.processor,",
    ]


def test_groups_that_failed_are_refilled_by_one_method_of_the_trainer() -> None:
    """recipe.hdpo.training.trainer_sync._add_prompts_to_generate"""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    assert "refill_fn=self._add_prompts_to_generate" in inspect.getsource(PPOTrainer._build_replay_buffer)
    assert parameters(PPOTrainer._add_prompts_to_generate) == ["self", "num_prompts"]


def test_validation_takes_a_sample_without_an_accuracy_for_a_wrong_one() -> None:
    """recipe.hdpo.algorithm.cliff.UNSCORED"""
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    infos = {"reward": [1.0, 0.0], "acc": [1.0, None]}
    found = process_validation_metrics(["s", "s"], ["u", "u"], infos, expected_acc_counts={("s", "u"): 2})
    assert found["s"]["acc"]["mean@2"] == found["s"]["reward"]["mean@2"] == 0.5


def test_the_sglang_server_takes_max_tokens_and_log_probs_as_vllms_does_and_leaves_one_position_free() -> None:
    """recipe.hdpo.rollout.agent_loop, recipe.hdpo.config.lengths.unused_positions. Read, since SGLang is not there."""
    server = Path(importlib.util.find_spec("verl").origin).parent / "workers/rollout/sglang_rollout"
    source = (server / "async_sglang_server.py").read_text()
    assert "max_possible_tokens = self.config.max_model_len - len(prompt_ids) - 1" in source
    assert 'max_new_tokens = sampling_params.pop("max_tokens")' in source
    assert 'return_logprob = sampling_params.pop("logprobs", False)' in source
    assert '"sampling_params": sampling_params,' in source


def test_main_ppo_imports_its_constants_before_hydra_composes_and_takes_the_check_of_a_config_by_name() -> None:
    """recipe.hdpo.plugin: Hydra's search path comes with the first, and the second is wrapped before it is taken."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin
    from verl.trainer import main_ppo
    from verl.utils import config as verl_config

    from recipe.hdpo.search_path import HDPOSearchPath

    top = [node for node in ast.parse(inspect.getsource(main_ppo)).body if isinstance(node, ast.ImportFrom)]
    imported = {(node.module, name.name) for node in top for name in node.names}
    assert ("verl.trainer.constants_ppo", "get_ppo_ray_runtime_env") in imported
    assert ("verl.utils.config", "validate_config") in imported
    assert HDPOSearchPath in Plugins.instance().discover(SearchPathPlugin)
    assert main_ppo.validate_config is verl_config.validate_config and hasattr(main_ppo.validate_config, "__wrapped__")
    assert parameters(verl_config.validate_config) == ["config", "use_reference_policy", "use_critic"]
    source = inspect.getsource(inspect.unwrap(main_ppo.main))
    assert source.index("validate_config(\n        config=config,") < source.index("run_ppo(")


def test_what_is_looked_at_before_ray_is_looked_at_by_verls_own_functions() -> None:
    """recipe.hdpo.config.preflight"""
    from ray._private.utils import read_ray_address
    from verl.utils import hf_tokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.utils.device import get_device_name, get_torch_device
    from verl.utils.import_utils import load_extern_object

    assert parameters(hf_tokenizer)[0] == "name_or_path" and "kwargs" in parameters(hf_tokenizer)
    assert parameters(load_extern_object) == ["module_path", "object_name"]
    assert parameters(get_device_name) == parameters(get_torch_device) == []
    assert all(p.default is not p.empty for p in inspect.signature(read_ray_address).parameters.values())
    read = set(re.findall(r'endswith\("(\.\w+)"\)', inspect.getsource(RLHFDataset._read_files_and_tokenize)))
    assert read == {".parquet", ".json", ".jsonl"}


def test_agent_loops_are_made_by_hydra_from_a_registry_with_a_client_of_the_servers() -> None:
    """recipe.hdpo.rollout.privileged_agent: a second name, under which the same class gets another client."""
    from verl.experimental.agent_loop import agent_loop

    run = inspect.getsource(inspect.unwrap(agent_loop.AgentLoopWorker._run_agent_loop))
    assert "agent_loop_config = _agent_loop_registry[agent_name]" in run
    for argument in ("config=agent_loop_config", "trainer_config=DictConfigWrap(", "server_manager=self.llm_client"):
        assert argument in run
    init = inspect.getsource(agent_loop.AgentLoopWorker.__init__)
    assert "_agent_loop_registry[agent_loop_config.name] = agent_loop_config" in init
    assert {"single_turn_agent", "tool_agent"} <= set(agent_loop._agent_loop_registry)


def test_an_agent_takes_template_options_from_the_data_config_and_one_builder_for_prompt_and_context() -> None:
    """recipe.hdpo.rollout.privileged_agent: options of its own for the prompt, verl's builder for what joins later."""
    from verl.experimental.agent_loop import agent_loop

    run = inspect.getsource(inspect.unwrap(agent_loop.AgentLoopWorker._run_agent_loop))
    assert "data_config=DictConfigWrap(self.config.data)" in run
    init = inspect.getsource(agent_loop.AgentLoopBase.__init__)
    assert "self.data_config = data_config.config" in init
    assert 'self.apply_chat_template_kwargs = self.data_config.get("apply_chat_template_kwargs", {})' in init
    merge = agent_loop.AgentLoopBase.ct_merge_context_msg
    assert inspect.iscoroutinefunction(merge)
    assert "self.continuous_token_builder.merge_context_tokens(" in inspect.getsource(merge)


def test_agents_ask_the_client_turn_by_turn_with_the_whole_context_by_keyword() -> None:
    """recipe.hdpo.rollout.privileged_agent.BudgetedServer"""
    from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
    from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
    from verl.workers.rollout.llm_server import LLMServerClient

    names = inspect.signature(inspect.unwrap(LLMServerClient.generate)).parameters
    assert all(names[name].kind is inspect.Parameter.KEYWORD_ONLY for name in ("prompt_ids", "sampling_params"))
    turn = inspect.getsource(ToolAgentLoop._handle_generating_state)
    assert "self.server_manager.generate(" in turn and "prompt_ids=agent_data.prompt_ids" in turn
    assert "self.server_manager.generate(" in inspect.getsource(inspect.unwrap(SingleTurnAgentLoop.run))


def test_verls_tool_agent_chooses_tools_by_the_row_and_ends_where_an_answer_finds_no_room() -> None:
    """recipe.hdpo.rollout.tool_agents"""
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop

    run = inspect.getsource(inspect.unwrap(ToolAgentLoop.run))
    assert 'tool_selection = extra_info.get("tool_selection")' in run and "if tool_selection and self.tools:" in run
    assert run.count("model_dump(exclude_unset=True, exclude_none=True)") == 1
    processing = inspect.getsource(ToolAgentLoop._handle_processing_tools_state)
    end = processing.index("if len(response_mask) >= self.response_length:\n            return AgentState.TERMINATED")
    assert end < processing.index("agent_data.response_mask = response_mask")
    assert "self.ct_merge_context_msg(" in processing and "tools=schemas" in processing
    # recipe.hdpo.rollout.privileged_agent: the prompt gets its token ids once, and tools read the messages after that.
    pending = inspect.getsource(ToolAgentLoop._handle_pending_state)
    assert "agent_data.prompt_ids = prompt_ids" in pending and "agent_data.messages," in pending
    assert "messages = list(kwargs" in run and "agent_data=agent_data" in inspect.getsource(ToolAgentLoop._call_tool)
    init = inspect.getsource(ToolAgentLoop.__init__)
    assert "ToolParser.get_tool_parser(self.rollout_config.multi_turn.format, self.tokenizer)" in init
    assert "self.tools = load_all_tools(" in inspect.getsource(AgentLoopWorker.__init__)


def test_tokens_of_the_model_have_a_mask_of_1_and_those_of_the_context_of_0() -> None:
    """recipe.hdpo.rollout.agent_loop hands the mask on as it is."""
    from verl.utils.tokenizer.continuous_token import ContinuousTokenBuilder

    align = inspect.getsource(ContinuousTokenBuilder.align_response_metadata)
    assert "aligned_mask += [1] * merge_result.appended_token_count" in align
    assert "aligned_mask += [0] * merge_result.appended_token_count" in align
    assert "aligned_mask += [0] * inserted_token_count" in align
    assert "tools" in parameters(ContinuousTokenBuilder.build_initial_tokens)
