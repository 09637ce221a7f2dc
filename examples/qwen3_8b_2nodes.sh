#!/usr/bin/env bash
# Qwen3-8B on two nodes of 8 GPUs: recipe/hdpo/run_qwen3_8b_fsdp.sh with twice the prompts a step and as many optimizer steps. Install this
# package on both nodes, start a Ray cluster (`ray start --head` on one, `ray start --address=HEAD:6379` on the other), then run this on the
# head. DATA, CHECKPOINTS and a MODEL that is a folder must lie on a disk that both share, under absolute paths.
#   CHECKPOINTS=/shared/hdpo DATA=/shared/gsm8k bash examples/qwen3_8b_2nodes.sh
# The cluster is checked first: nodes, accelerators, packages, folders. Not run on GPUs; a training of two nodes ran on CPUs
# (`python -m tests.drills two_nodes`). A test composes this config and checks it.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
: "${CHECKPOINTS:?an absolute folder on a disk that all nodes share}"
: "${DATA:?an absolute folder on a disk that all nodes share, with train.parquet and test.parquet}"
export CHECKPOINTS DATA NAME=${NAME:-qwen3-8b-2nodes} NNODES=2
cd "$(dirname "$0")/.."
paths=("$DATA/train.parquet" "$DATA/test.parquet")
[[ -e ${MODEL:-} ]] && paths+=("$MODEL")
python3 -m recipe.hdpo.cluster --nodes 2 --gpus-per-node "${NGPUS_PER_NODE:-8}" --shared "$CHECKPOINTS" --paths "${paths[@]}"
exec bash recipe/hdpo/run_qwen3_8b_fsdp.sh \
    data.train_batch_size=512 \
    actor_rollout_ref.actor.ppo_mini_batch_size=128 \
    "$@"
