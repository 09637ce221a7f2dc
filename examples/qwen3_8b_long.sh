#!/usr/bin/env bash
# Qwen3-8B with responses of 16k tokens on 8 GPUs of 80 GB: recipe/hdpo/run_qwen3_8b_fsdp.sh with sequence parallelism, two GPUs a
# sequence, and the fused head, by which no logits are made (at 32k tokens x 151,936 words 1.3 GiB where they take 27).
#   bash examples/qwen3_8b_long.sh [overrides]
# Sequence parallelism wants flash attention, which is verl's default. Privileged rollouts of long responses are worth
# hdpo.privileged.schedule=next_step, by which no step waits for them.
# Not run: no GPUs were at hand. A test composes this config and checks it.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
export NAME=${NAME:-qwen3-8b-long}
exec bash "$(dirname "$0")/../recipe/hdpo/run_qwen3_8b_fsdp.sh" \
    data.max_response_length=16384 \
    actor_rollout_ref.actor.ulysses_sequence_parallel_size=2 \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=20480 \
    hdpo.fused_head=true \
    hdpo.privileged.schedule=next_step \
    "$@"
