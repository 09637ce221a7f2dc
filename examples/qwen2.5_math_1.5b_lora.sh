#!/usr/bin/env bash
# The 8-GPU run with a LoRA adapter of rank 64 on all linear layers, at ten times its learning rate (our choice; the paper trains all
# weights). Weights reach vLLM as the adapter alone. With hdpo.teacher=frozen the teacher is the model with its adapter off, so
# there is no second model:
#   bash examples/qwen2.5_math_1.5b_lora.sh [overrides, e.g. hdpo.teacher=frozen actor_rollout_ref.model.lora.merge=true]
# lora.merge=true sends vLLM whole weights in place of the adapter. Not run on GPUs; what ran on CPUs is in docs/own_job.md.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
export NAME=${NAME:-qwen2.5-math-1.5b-lora}
exec bash "$(dirname "$0")/qwen2.5_math_1.5b_8gpu.sh" \
    actor_rollout_ref.model.lora_rank=64 \
    actor_rollout_ref.model.lora_alpha=64 \
    actor_rollout_ref.model.target_modules=all-linear \
    actor_rollout_ref.actor.optim.lr=1e-5 \
    "$@"
