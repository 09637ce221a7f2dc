"""Every seam of verl 0.9.1's asynchronous trainers that the recipe stands on. Each test names who depends on it."""

from __future__ import annotations

import inspect

from tests.contract.test_verl_seams import parameters


def test_verls_async_buffer_evicts_by_one_method_and_asks_for_as_many_prompts() -> None:
    """recipe.hdpo.training.evictions"""
    from verl.trainer.ppo.v1.replay_buffer import ReplayBufferAsync

    names = ["self", "global_steps", "partition_id", "eviction_reasons"]
    assert parameters(ReplayBufferAsync._evict_terminal_groups) == names
    wait = inspect.getsource(ReplayBufferAsync.wait_for_sampleable)
    assert wait.index("self._evict_terminal_groups(") < wait.index("self.refill_fn(len(evicted_uids))")
    reasons = inspect.getsource(ReplayBufferAsync._terminal_eviction_reasons)
    assert "return stale_uids, dapo_uids, set(self.failure_keys[partition_id]), dapo_counts" in reasons
    stale = inspect.getsource(ReplayBufferAsync._stale_terminal_keys)
    assert "global_steps - prompt_global_steps.get(uid, global_steps) + 1 > self.max_off_policy_threshold" in stale


def test_prompts_under_way_are_put_with_their_rows_and_re_issued_by_partition_before_the_first_step() -> None:
    """recipe.hdpo.transfer.cliff_tag, recipe.hdpo.training.trainer_async._reissue_inflight_prompts"""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    submit = inspect.getsource(PPOTrainer._submit_batch_to_rollout)
    assert '{"is_prompt": True, "status": "pending", "global_steps": self.global_steps}' in submit
    assert 'if self.trainer_mode != "sync":' in submit and "fields=batch.select(" in submit
    assert parameters(PPOTrainer._reissue_inflight_prompts) == ["self", "partition_id"]
    again = inspect.getsource(PPOTrainer._reissue_inflight_prompts)
    assert "batch = tq.kv_batch_get(keys=inflight_uids, partition_id=partition_id)" in again
    assert 'tag.get("status") in ("pending", "running")' in again
    assert 'tu.assign_non_tensor_data(batch, "global_steps", self.global_steps)' in again
    fit = inspect.getsource(PPOTrainer.fit)
    assert fit.index("self._reissue_inflight_prompts()") < fit.index("self.on_train_begin()")


def test_the_queue_is_saved_before_the_mark_and_counts_prompts_of_its_training_partition_alone() -> None:
    """recipe.hdpo.training.checkpoints.QUEUE; verl's count of restored prompts must not see the recipe's cliffs."""
    from transfer_queue import interface
    from verl.trainer.ppo.v1 import trainer_base

    save = inspect.getsource(trainer_base.PPOTrainer._save_checkpoint)
    mark = save.index('"latest_checkpointed_iteration.txt"')
    assert save.index('"data.pt"') < save.index('os.path.join(local_global_step_folder, "transfer_queue")') < mark
    assert interface._METADATA_FILE == "metadata.json"
    assert parameters(trainer_base._count_tq_prompt_groups) == ["partition_id"]
    assert "self._restored_tq_prompt_count = _count_tq_prompt_groups()" in inspect.getsource(
        trainer_base.PPOTrainer._load_checkpoint
    )


def test_an_interrupted_rollout_goes_on_within_max_tokens_and_says_with_which_weights_it_began() -> None:
    """recipe.hdpo.rollout.agent_loop, and the refusal of hdpo.rollout_seed: the seed is given to each part anew."""
    from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient, LLMServerClient

    generate = inspect.getsource(inspect.unwrap(FullyAsyncLLMServerClient.generate))
    assert "sampling_params[limit_key] = original_max_tokens - len(final_output.token_ids)" in generate
    assert 'final_output.extra_fields["min_global_steps"] = min_global_steps' in generate
    assert "prompt_ids=prompt_ids + final_output.token_ids" in generate and "seed" not in generate
    plain = inspect.getsource(inspect.unwrap(LLMServerClient.generate))
    assert 'output.extra_fields.setdefault("min_global_steps", global_steps)' in plain


def test_the_worker_keeps_its_background_tasks_alive() -> None:
    """recipe.hdpo.rollout.reissue._let_follow"""
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

    worker = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    assert "self.background_tasks = set()" in inspect.getsource(worker.__init__)
    assert "self.background_tasks.add(task)" in inspect.getsource(inspect.unwrap(worker.generate_sequences))


def test_verl_averages_what_it_does_not_know_over_the_updates_of_a_step() -> None:
    """recipe.hdpo.training.trainer.step counts by itself."""
    from verl.trainer.ppo.v1.utils import MetricsAggregator

    aggregator = MetricsAggregator()
    for value in (2, 4):
        aggregator.add_step_metrics({"hdpo/cliffs": value}, sample_count=1)
    assert aggregator.get_aggregated_metrics() == {"hdpo/cliffs": 3.0}


def test_the_separate_trainer_replaces_the_worker_and_puts_older_weights_into_place_for_log_probs_alone() -> None:
    """recipe.hdpo.training.trainer_async.HDPOTrainerSeparateAsync"""
    from verl.experimental.separation.engine_workers import DetachActorWorker
    from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync

    source = inspect.getsource(PPOTrainerSeparateAsync)
    assert "ray.remote(DetachActorWorker)" in inspect.getsource(PPOTrainerSeparateAsync._init_resource_pool_mgr)
    old = inspect.getsource(PPOTrainerSeparateAsync._compute_old_log_prob)
    for name in ("save_model_to_cpu", "restore_model_from_cpu", "clear_cpu_model"):
        assert hasattr(DetachActorWorker, name)
        assert source.count(f"self.actor_rollout_wg.{name}(") == old.count(f"self.actor_rollout_wg.{name}(") > 0
    # At the end of it the weights are those of before, so that the teacher is read with the update's own.
    assert old.rindex("restore_model_from_cpu(self.local_trigger_step)") > old.rindex("super()._compute_old_log_prob")
    assert "ActorRolloutRefWorker.__init__(self, config, role" in inspect.getsource(DetachActorWorker.__init__)


def test_verl_still_logs_a_line_with_flush() -> None:
    """recipe.hdpo.training.verl_bugs: once this fails, the work-around can go."""
    from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync

    assert "flush=True" in inspect.getsource(PPOTrainerSeparateAsync._setup)


def test_verl_still_saves_weights_that_are_on_the_host_without_a_copy() -> None:
    """recipe.hdpo.training.verl_bugs: once this fails, the work-around can go."""
    from verl.utils import fsdp_utils

    assert "local_gpu_tensor.detach().cpu()" in inspect.getsource(fsdp_utils.fsdp2_sharded_save_to_cpu)
