#!/usr/bin/env bash
# Qwen3-4B writes programs, without solutions: a cliff is shown a failed program and the first test that it failed.
#   bash examples/qwen3_4b_code.sh [overrides]
# DATA is a folder with train.parquet and test.parquet in verl's form, whose ground truths are test cases as verl's prime_code reads
# them: {"inputs": [...], "outputs": [...]}, for example verl's preparation of PRIME-RL/Eurus-2-RL-Data, its coding rows.
# prime_code runs the model's programs on this machine; see recipe/hdpo/code_reward.py.
# Not run: no GPUs were at hand. A test composes this config and checks it; the reward runs in the tests.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
export NAME=${NAME:-qwen3-4b-code} DATA=${DATA:-$HOME/data/code}
exec bash "$(dirname "$0")/qwen3_4b.sh" \
    +control=feedback \
    data.max_prompt_length=2048 \
    reward.custom_reward_function.path=pkg://recipe.hdpo.code_reward \
    "$@"
