#!/usr/bin/env bash
# Qwen3-8B with a LoRA adapter of rank 64 on all linear layers, at ten times the learning rate: recipe/hdpo/run_qwen3_8b_fsdp.sh with four
# settings more. vLLM gets the adapter alone; actor_rollout_ref.model.lora.merge=true sends whole weights in its place. With
# hdpo.teacher=frozen the teacher is the model with its adapter off.
# Not run on GPUs. LoRA with vLLM ran by hand on CPUs, 4 steps of a small model, and its gradients are exact in a test (docs/own_job.md).
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
export NAME=${NAME:-qwen3-8b-lora}
exec bash "$(dirname "$0")/../recipe/hdpo/run_qwen3_8b_fsdp.sh" \
    actor_rollout_ref.model.lora_rank=64 \
    actor_rollout_ref.model.lora_alpha=64 \
    actor_rollout_ref.model.target_modules=all-linear \
    actor_rollout_ref.actor.optim.lr=1e-5 \
    "$@"
