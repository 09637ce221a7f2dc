#!/usr/bin/env bash
# Qwen3-4B on reasoning-gym's tasks, without solutions: a cliff is shown a failed attempt and what the verifier said of it.
#   python3 -m recipe.hdpo.data --gym leg_counting chain_sum knights_knaves --max-rows 5000 --out ~/data/gym   # any of its tasks by name
#   bash examples/qwen3_4b_gym.sh [overrides]
# The reward is the verifier's own score. It says what it read as the answer and what that is worth, not what is right.
# Not run: no GPUs were at hand. A test composes this config and checks it; one step ran on CPUs, with SmolLM2-135M, which solved nothing.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
export NAME=${NAME:-qwen3-4b-gym} DATA=${DATA:-$HOME/data/gym}
exec bash "$(dirname "$0")/qwen3_4b.sh" \
    +control=feedback \
    reward.custom_reward_function.path=pkg://recipe.hdpo.gym_reward \
    "$@"
