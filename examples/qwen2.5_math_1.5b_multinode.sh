#!/usr/bin/env bash
# Several nodes of 8 GPUs. Start a Ray cluster first (`ray start --head` on one node, `ray start --address=HEAD:6379` on the others),
# with this package installed on every node, then run this on the head node. 32 prompts a step for each node, at the paper's learning
# rate and number of steps for 32 in all. CHECKPOINTS, DATA and a MODEL that is a folder must lie on a disk that all nodes share, under
# absolute paths: every node writes its part of a checkpoint, and Ray decides on which node the trainer runs. One run at a time on a
# cluster: TransferQueue's actors have fixed names, and a second run is refused. All of this is checked before anything starts
# (`python3 -m recipe.hdpo.cluster`), and that all nodes have the same packages. Two nodes ran on CPUs (`python -m tests.drills two_nodes`).
#   NNODES=4 CHECKPOINTS=/shared/hdpo DATA=/shared/openmathinstruct2 bash examples/qwen2.5_math_1.5b_multinode.sh
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
: "${CHECKPOINTS:?an absolute folder on a disk that all nodes share}"
: "${DATA:?an absolute folder on a disk that all nodes share, with train.parquet and test.parquet}"
export CHECKPOINTS DATA
cd "$(dirname "$0")/.."
nodes=${NNODES:-2} paths=("$DATA/train.parquet" "$DATA/test.parquet")
[[ -e ${MODEL:-} ]] && paths+=("$MODEL")
python3 -m recipe.hdpo.cluster --nodes "$nodes" --gpus-per-node 8 --shared "$CHECKPOINTS" --paths "${paths[@]}"
exec bash examples/qwen2.5_math_1.5b_8gpu.sh \
    trainer.nnodes="$nodes" \
    data.train_batch_size=$((32 * nodes)) \
    actor_rollout_ref.actor.ppo_mini_batch_size=$((32 * nodes)) \
    "$@"
