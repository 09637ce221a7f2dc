#!/usr/bin/env bash
# The paper's run, as far as it is known: Qwen2.5-Math-1.5B-Instruct on OpenMathInstruct-2, one node of 8 GPUs.
#   python data_preprocess/openmathinstruct2.py --out ~/data/openmathinstruct2
#   bash examples/qwen2.5_math_1.5b_8gpu.sh [overrides, e.g. hdpo.distillation_loss_coef=0.1 hdpo.teacher=frozen]
# Another arm needs a NAME of its own, or it goes on from the first one's checkpoint:
#   NAME=grpo bash examples/qwen2.5_math_1.5b_8gpu.sh +control=grpo
# DATA (a folder with train.parquet and test.parquet, absolute), MODEL (a folder or a name on the hub), NAME and CHECKPOINTS (a folder,
# absolute) can be set. Checkpoints go to CHECKPOINTS/NAME, the last two are kept (with the optimizer some 20 GB each).
# Settings of the paper: 32 prompts x 16 rollouts a step, clip 0.2, AdamW 1e-6 with 50 steps of linear warm-up, 2000 steps,
# temperature 1.0, k = 64. Lengths, batching and J are our choice: the model has 4096 positions, of which 2048 go to a response
# and up to 2048 to a privileged prompt.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
cd "$(dirname "$0")/.."

DATA=${DATA:-$HOME/data/openmathinstruct2}
MODEL=${MODEL:-Qwen/Qwen2.5-Math-1.5B-Instruct}
NAME=${NAME:-qwen2.5-math-1.5b}
CHECKPOINTS=${CHECKPOINTS:-$PWD/checkpoints/hdpo}

exec python3 -m verl.trainer.main_ppo --config-path pkg://recipe.hdpo.config --config-name hdpo_trainer \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/test.parquet" \
    data.train_batch_size=32 \
    data.max_prompt_length=1024 \
    data.max_response_length=2048 \
    data.filter_overlong_prompts=true \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.model.use_remove_padding=true \
    actor_rollout_ref.model.enable_gradient_checkpointing=true \
    actor_rollout_ref.actor.strategy=fsdp2 \
    actor_rollout_ref.actor.ppo_mini_batch_size=32 \
    actor_rollout_ref.actor.use_dynamic_bsz=true \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
    actor_rollout_ref.actor.clip_ratio=0.2 \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.optim.lr_warmup_steps=50 \
    actor_rollout_ref.ref.strategy=fsdp2 \
    actor_rollout_ref.rollout.n=16 \
    actor_rollout_ref.rollout.temperature=1.0 \
    actor_rollout_ref.rollout.max_model_len=4096 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    actor_rollout_ref.rollout.val_kwargs.n=8 \
    actor_rollout_ref.rollout.val_kwargs.do_sample=true \
    actor_rollout_ref.rollout.val_kwargs.temperature=1.0 \
    reward.custom_reward_function.path=pkg://recipe.hdpo.reward \
    reward.custom_reward_function.name=compute_score \
    hdpo.distillation_loss_coef=0.01 \
    hdpo.topk=64 \
    trainer.total_training_steps=2000 \
    trainer.n_gpus_per_node=8 \
    trainer.nnodes=1 \
    trainer.save_freq=100 \
    trainer.max_actor_ckpt_to_keep=2 \
    trainer.default_local_dir="$CHECKPOINTS/$NAME" \
    trainer.test_freq=100 \
    trainer.project_name=hdpo \
    trainer.experiment_name="$NAME" \
    'trainer.logger=[console,tensorboard]' \
    "$@"
