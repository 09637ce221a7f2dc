#!/usr/bin/env bash
# HDPO | Qwen3-8B | GSM8K | FSDP2 | vLLM | one node of 8 GPUs of 80 GB
# A GRPO command on verl's own config, and one flag: +use=hdpo. Its lengths, batch and learning rate are like those of verl's GRPO examples;
# rollouts have temperature 1 and no KL, as in the paper. Qwen3 answers without thinking aloud, which would take far more than 2048 tokens.
#   python3 -m recipe.hdpo.data --preset gsm8k --out ~/data/gsm8k
#   bash recipe/hdpo/run_qwen3_8b_fsdp.sh [overrides, e.g. hdpo.distillation_loss_coef=0.01 hdpo.teacher=frozen +control=answer_only]
# DATA (a folder with train.parquet and test.parquet), MODEL (a folder or a name on the hub), NAME, CHECKPOINTS (a folder), NNODES and
# NGPUS_PER_NODE can be set. Checkpoints go to CHECKPOINTS/NAME; another arm needs a NAME of its own.
# Not run: no GPUs were at hand. A test composes this config and checks it; the same way to start ran on CPUs, with a small model.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac

DATA=${DATA:-$HOME/data/gsm8k}
MODEL=${MODEL:-Qwen/Qwen3-8B}
NAME=${NAME:-qwen3-8b}
CHECKPOINTS=${CHECKPOINTS:-$PWD/checkpoints/hdpo}
# Where this folder is a copy among verl's recipes, nothing else tells verl of it. Where the package is installed, this changes nothing.
export VERL_USE_EXTERNAL_MODULES=${VERL_USE_EXTERNAL_MODULES:-recipe.hdpo.plugin}

exec python3 -m verl.trainer.main_ppo +use=hdpo \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/test.parquet" \
    data.train_batch_size=256 \
    data.max_prompt_length=1024 \
    data.max_response_length=2048 \
    data.filter_overlong_prompts=True \
    data.truncation=error \
    +data.apply_chat_template_kwargs.enable_thinking=False \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.model.use_remove_padding=True \
    actor_rollout_ref.model.enable_gradient_checkpointing=True \
    actor_rollout_ref.actor.strategy=fsdp2 \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=64 \
    actor_rollout_ref.actor.use_dynamic_bsz=True \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
    actor_rollout_ref.actor.use_kl_loss=False \
    actor_rollout_ref.actor.entropy_coeff=0 \
    actor_rollout_ref.ref.strategy=fsdp2 \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=16384 \
    algorithm.use_kl_in_reward=False \
    reward.custom_reward_function.path=pkg://recipe.hdpo.reward \
    reward.custom_reward_function.name=compute_score \
    hdpo.distillation_loss_coef=0.1 \
    'trainer.logger=[console,tensorboard]' \
    trainer.project_name=hdpo \
    trainer.experiment_name="$NAME" \
    trainer.default_local_dir="$CHECKPOINTS/$NAME" \
    trainer.rollout_data_dir="$CHECKPOINTS/$NAME/rollouts" \
    trainer.n_gpus_per_node="${NGPUS_PER_NODE:-8}" \
    trainer.nnodes="${NNODES:-1}" \
    trainer.save_freq=20 \
    trainer.max_actor_ckpt_to_keep=2 \
    trainer.test_freq=5 \
    trainer.total_epochs=15 \
    "$@"
