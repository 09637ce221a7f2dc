#!/usr/bin/env bash
# Qwen3-4B with a teacher that follows slowly: +control=ema, a moving average of the actor's weights, for runs in which the drifting
# teacher forgets how to use its privileged prompt (hdpo/teacher_collapse). It costs 4 bytes of host memory a weight, 16 GB here over all
# GPUs, as much again as the weights take while it reads, and two round trips of the weights to the host in a step.
#   bash examples/qwen3_4b_ema.sh [overrides, e.g. hdpo.ema_decay=0.99, or hdpo.teacher=mixed hdpo.mixed_weight=0.5]
# hdpo.teacher=mixed stands between drifting and frozen; it costs a second copy of the weights and a second forward in the teacher pass.
# Not run: no GPUs were at hand. A test composes this config and checks it.
set -euo pipefail
case ${1:-} in -h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;; esac
export NAME=${NAME:-qwen3-4b-ema}
exec bash "$(dirname "$0")/qwen3_4b.sh" +control=ema "$@"
