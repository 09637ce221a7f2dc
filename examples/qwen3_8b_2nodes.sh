#!/usr/bin/env bash
# Qwen3-8B on two nodes of 8 GPUs: recipe/hdpo/run_qwen3_8b_fsdp.sh with twice the prompts a step and as many optimizer steps. Install this
# package on both nodes, start a Ray cluster (`ray start --head` on one, `ray start --address=HEAD:6379` on the other), then run this on the
# head. DATA, CHECKPOINTS and a MODEL that is a folder must lie on a disk that both share, under absolute paths.
#   CHECKPOINTS=/shared/hdpo DATA=/shared/gsm8k bash examples/qwen3_8b_2nodes.sh
# Not run, nor anything else on more than one node. A test composes this config and checks it.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
: "${CHECKPOINTS:?an absolute folder on a disk that all nodes share}"
: "${DATA:?an absolute folder on a disk that all nodes share, with train.parquet and test.parquet}"
export CHECKPOINTS DATA NAME=${NAME:-qwen3-8b-2nodes} NNODES=2
exec bash "$(dirname "$0")/../recipe/hdpo/run_qwen3_8b_fsdp.sh" \
    data.train_batch_size=512 \
    actor_rollout_ref.actor.ppo_mini_batch_size=128 \
    "$@"
