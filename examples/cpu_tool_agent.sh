#!/usr/bin/env bash
# HDPO for a tool agent: a model of 1 M parameters that asks a calculator for sums, on two CPU cores. The demo with verl's tool agent.
#   python -m examples.agent.make_agent_model --out models/agent-base
#   python data_preprocess/sums.py --out data/sums
#   MODEL=models/agent-base DATA=data/sums OUT=outputs/agent bash examples/cpu_tool_agent.sh [overrides]
# Other models and tools: docs/agents.md.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
cd "$(dirname "$0")/.."

exec bash examples/cpu_demo.sh \
    actor_rollout_ref.rollout.multi_turn.enable=true \
    actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent \
    actor_rollout_ref.rollout.multi_turn.format=hermes \
    actor_rollout_ref.rollout.multi_turn.function_tool_path="$PWD/examples/agent/calculator.py" \
    trainer.rollout_data_dir="${OUT:?folder for checkpoints, logs and metrics}/rollouts" \
    trainer.experiment_name=tool-agent \
    "$@"
