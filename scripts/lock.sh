#!/usr/bin/env bash
# Compiles requirements/cpu.in into cpu.lock. torch is taken out: PyPI does not have its +cpu build (scripts/setup.sh).
set -euo pipefail
cd "$(dirname "$0")/../requirements"
command -v uv >/dev/null || { echo "lock: uv is needed (pip install uv)" >&2; exit 1; }
links=${PIP_FIND_LINKS:+--find-links $PIP_FIND_LINKS}
# shellcheck disable=SC2086
uv pip compile cpu.in --override cpu-overrides.txt --python-version 3.11 --generate-hashes --no-annotate --no-header \
    --no-emit-package torch --no-emit-find-links --quiet $links -o cpu.lock.tmp
{
    echo "# Compiled from cpu.in with cpu-overrides.txt for Python 3.11 by scripts/lock.sh; install with --no-deps."
    cat cpu.lock.tmp
} > cpu.lock
rm cpu.lock.tmp
