#!/usr/bin/env bash
# One GPU of 80 GB: the 8-GPU run with parameters and optimizer offloaded between phases, smaller micro-batches, and validation on 200
# problems every 100 steps.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
exec bash "$(dirname "$0")/qwen2.5_math_1.5b_8gpu.sh" \
    trainer.n_gpus_per_node=1 \
    data.val_max_samples=200 \
    trainer.test_freq=100 \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192 \
    actor_rollout_ref.actor.fsdp_config.param_offload=true \
    actor_rollout_ref.actor.fsdp_config.optimizer_offload=true \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.4 \
    "$@"
