#!/usr/bin/env bash
# Qwen3-8B with rollouts by SGLang: recipe/hdpo/run_qwen3_8b_fsdp.sh with another engine (pip install 'verl[sglang]==0.9.1' . in the place of
# ".[gpu]"). Privileged rollouts go through verl's agent loop, which is the same for both engines.
# Not run at all, on GPUs or CPUs: SGLang is no part of the CPU stack. What the rollout hook asks of verl's SGLang server was read in its
# source, which a test watches: it takes a response's length from the request, and leaves one position of the context free, for which
# privileged prompts leave room. It knows no seeds of single rollouts, so hdpo.rollout_seed is refused.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
export NAME=${NAME:-qwen3-8b-sglang}
exec bash "$(dirname "$0")/../recipe/hdpo/run_qwen3_8b_fsdp.sh" actor_rollout_ref.rollout.name=sglang "$@"
