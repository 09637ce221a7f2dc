#!/usr/bin/env bash
# The paper's five arms, several seeds each, one run after the other on one node of 8 GPUs; then `make paper-table RUNS=FOLDER`.
#   python -m data_preprocess.openmathinstruct2 --out ~/data/openmathinstruct2
#   RUNS=~/hdpo_paper bash examples/paper/runs.sh [overrides of every run]
# Not run here: a GPU was at hand for minutes only. Each run is examples/qwen2.5_math_1.5b_8gpu.sh, 2000 steps; a round is one seed of every
# arm, so that whatever is finished can be compared. The same command goes on where it stopped: finished runs are skipped, the others
# resume from their last checkpoint. ARMS and SEEDS can be set, as can DATA, MODEL and CHECKPOINTS (absolute). DRY=1 prints the commands.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
cd "$(dirname "$0")/../.."

RUNS=${RUNS:?a folder for the metrics, for example RUNS=~/hdpo_paper}
ARMS=${ARMS:-grpo frozen_0.01 frozen_0.1 drifting_0.01 drifting_0.1}
SEEDS=${SEEDS:-42 43 44 45 46}

for seed in $SEEDS; do
    for arm in $ARMS; do
        case $arm in
            grpo) overrides=(+control=grpo) ;;
            frozen_* | drifting_*) overrides=("hdpo.teacher=${arm%_*}" "hdpo.distillation_loss_coef=${arm#*_}") ;;
            *) echo "error: unknown arm $arm in ARMS: grpo, frozen_LAMBDA, drifting_LAMBDA" >&2 && exit 2 ;;
        esac
        folder=$RUNS/$arm/seed$seed
        [ -e "$folder/done" ] && echo "[hdpo] $arm, seed $seed: done" && continue
        # verl's file logger begins its file anew at every start: one file a start, merged by the table.
        command=(env "NAME=paper-$arm-seed$seed" "VERL_FILE_LOGGER_PATH=$folder/$(date +%Y%m%dT%H%M%S).jsonl"
            bash examples/qwen2.5_math_1.5b_8gpu.sh "data.seed=$seed" "actor_rollout_ref.rollout.seed=$seed"
            "actor_rollout_ref.actor.data_loader_seed=$seed" "actor_rollout_ref.actor.fsdp_config.seed=$seed"
            'trainer.logger=[console,file]' "${overrides[@]}" "$@")
        if [ -n "${DRY:-}" ]; then
            printf '%q ' "${command[@]}" && echo
            continue
        fi
        echo "[hdpo] $arm, seed $seed: metrics in $folder"
        mkdir -p "$folder"
        "${command[@]}"
        touch "$folder/done"
    done
done
echo "[hdpo] next: make paper-table RUNS=$RUNS"
