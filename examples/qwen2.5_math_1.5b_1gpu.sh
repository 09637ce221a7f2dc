#!/usr/bin/env bash
# One GPU of 80 GB: the 8-GPU run with parameters and optimizer offloaded between phases and smaller micro-batches.
set -euo pipefail
exec bash "$(dirname "$0")/qwen2.5_math_1.5b_8gpu.sh" \
    trainer.n_gpus_per_node=1 \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192 \
    actor_rollout_ref.actor.fsdp_config.param_offload=true \
    actor_rollout_ref.actor.fsdp_config.optimizer_offload=true \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.4 \
    "$@"
