#!/usr/bin/env bash
# Qwen3-4B on 4 GPUs of 80 GB: recipe/hdpo/run_qwen3_8b_fsdp.sh with the smaller model.
# Not run: no GPUs were at hand. A test composes this config and checks it.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
export MODEL=${MODEL:-Qwen/Qwen3-4B} NAME=${NAME:-qwen3-4b} NGPUS_PER_NODE=${NGPUS_PER_NODE:-4}
exec bash "$(dirname "$0")/../recipe/hdpo/run_qwen3_8b_fsdp.sh" "$@"
