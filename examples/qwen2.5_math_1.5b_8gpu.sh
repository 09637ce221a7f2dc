#!/usr/bin/env bash
# The paper's run: Qwen2.5-Math-1.5B-Instruct on OpenMathInstruct-2, one node of 8 GPUs. Not run here: a GPU was at hand for minutes only.
#   python -m data_preprocess.openmathinstruct2 --out ~/data/openmathinstruct2
#   bash examples/qwen2.5_math_1.5b_8gpu.sh [overrides, e.g. hdpo.distillation_loss_coef=0.1 hdpo.teacher=frozen]
# Another arm needs a NAME of its own, or it goes on from the first one's checkpoint:
#   NAME=grpo bash examples/qwen2.5_math_1.5b_8gpu.sh +control=grpo
# DATA (a folder with train.parquet and test.parquet, absolute), MODEL (a folder or a name on the hub), NAME and CHECKPOINTS (a folder,
# absolute) can be set. Checkpoints go to CHECKPOINTS/NAME, the last two are kept (with the optimizer some 20 GB each).
#
# From the paper (its Table 2): 32 prompts x 16 rollouts and one optimizer step a step, 2000 steps, clip 0.2, token-level loss, no KL, AdamW
# (0.9, 0.999, 1e-8, weight decay 0.01, gradient norm 1.0), 1e-6, 50 steps of linear warm-up, then constant, temperature 1.0, packing,
# k = 64, seed 42, an evaluation every 10 steps on 2048 held-out problems. val-hdpo/.../greedy and val-hdpo/.../pass@1 are both logged, since
# the paper does not say which of the two its pass@1 is. Such an evaluation draws 18,432 responses; trainer.test_freq=100 is cheaper.
#
# Our choices: of the paper's 4096 tokens a response gets 2560, and a privileged prompt the other 1536. J = 1. The privileged prompt shows
# the worked solution; the paper may have shown the final answer alone: +control=answer_only. The warm-up begins at 0.02 of the rate,
# since verl's FSDP engine has no knob for the paper's 0.1: a "cosine" of 0 cycles is constant after a warm-up that does not begin at 0.
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
    data.max_response_length=2560 \
    data.filter_overlong_prompts=true \
    data.val_max_samples=2048 \
    data.seed=42 \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.model.use_remove_padding=true \
    actor_rollout_ref.model.enable_gradient_checkpointing=true \
    actor_rollout_ref.actor.strategy=fsdp2 \
    actor_rollout_ref.actor.ppo_mini_batch_size=32 \
    actor_rollout_ref.actor.use_dynamic_bsz=true \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
    actor_rollout_ref.actor.clip_ratio=0.2 \
    actor_rollout_ref.actor.loss_agg_mode=token-mean \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.optim.lr_warmup_steps=50 \
    actor_rollout_ref.actor.optim.lr_scheduler_type=cosine \
    actor_rollout_ref.actor.optim.num_cycles=0.0 \
    actor_rollout_ref.actor.optim.zero_indexed_step=false \
    "actor_rollout_ref.actor.optim.betas=[0.9,0.999]" \
    actor_rollout_ref.actor.optim.weight_decay=0.01 \
    actor_rollout_ref.actor.optim.clip_grad=1.0 \
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
    hdpo.validate_greedy=true \
    trainer.total_training_steps=2000 \
    trainer.n_gpus_per_node=8 \
    trainer.nnodes=1 \
    trainer.save_freq=100 \
    trainer.max_actor_ckpt_to_keep=2 \
    trainer.default_local_dir="$CHECKPOINTS/$NAME" \
    trainer.test_freq=10 \
    trainer.project_name=hdpo \
    trainer.experiment_name="$NAME" \
    'trainer.logger=[console,tensorboard]' \
    "$@"
