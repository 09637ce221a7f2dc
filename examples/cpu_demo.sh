#!/usr/bin/env bash
# HDPO on sums with a model of 1 M parameters, on two CPU cores. `make demo` runs it with model, data and evaluation around it.
#   MODEL=... DATA=... OUT=... bash examples/cpu_demo.sh [overrides]
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
cd "$(dirname "$0")/.."

: "${MODEL:?folder of the model made by examples/demo/make_sums_model.py}"
: "${DATA:?folder of the data made by data_preprocess/sums.py}"
: "${OUT:?folder for checkpoints, logs and metrics}"

mkdir -p "$OUT"
export VERL_PLATFORM=cpu VLLM_TARGET_DEVICE=cpu VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind
export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
export RAY_DEDUP_LOGS=1 RAY_USAGE_STATS_ENABLED=0 PYTHONWARNINGS=ignore VERL_FILE_LOGGER_PATH=${METRICS:-$OUT/metrics.jsonl}

exec "${PYTHON:-python3}" -m verl.trainer.main_ppo --config-path pkg://recipe.hdpo.config --config-name hdpo_trainer +device=cpu \
    hydra.run.dir="$OUT/hydra" \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/test.parquet" \
    data.train_batch_size=16 \
    data.max_prompt_length=64 \
    data.max_response_length=72 \
    data.dataloader_num_workers=0 \
    data.seed=1 \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.model.enable_gradient_checkpointing=false \
    actor_rollout_ref.actor.ppo_mini_batch_size=4 \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1024 \
    actor_rollout_ref.actor.optim.lr=1e-4 \
    actor_rollout_ref.actor.optim.lr_warmup_steps=5 \
    actor_rollout_ref.actor.optim.weight_decay=0.0 \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.max_model_len=256 \
    actor_rollout_ref.rollout.max_num_seqs=128 \
    reward.custom_reward_function.path=recipe/hdpo/reward.py \
    reward.custom_reward_function.name=compute_score \
    reward.num_workers=1 \
    hdpo.distillation_loss_coef=1.0 \
    $'hdpo.privileged.template="{{ problem }}\nReference:\n{{ solution }}"' \
    trainer.total_epochs=1000 \
    trainer.total_training_steps=100 \
    trainer.val_before_train=false \
    trainer.test_freq=-1 \
    trainer.save_freq=25 \
    trainer.max_actor_ckpt_to_keep=2 \
    "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]" \
    trainer.project_name=hdpo-demo \
    trainer.experiment_name=sums \
    trainer.default_local_dir="$OUT/checkpoints" \
    'trainer.logger=[console,file]' \
    "$@"
