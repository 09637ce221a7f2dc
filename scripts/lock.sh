#!/usr/bin/env bash
# Compiles requirements/*.in into their locks. torch is left out of cpu.lock: PyPI does not have its +cpu build (scripts/setup.sh).
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

{
    echo "# Compiled from docs.in for Python 3.11 to 3.13 by scripts/lock.sh; versions that cpu.lock has too are the same."
    uv pip compile docs.in -c cpu.lock --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
        --no-emit-find-links --quiet $links
} > docs.lock.tmp
mv docs.lock.tmp docs.lock
