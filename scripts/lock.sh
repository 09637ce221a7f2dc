#!/usr/bin/env bash
# Compiles requirements/*.in into their locks. cpu.lock is one list of packages for Python 3.11 and 3.12. torch is taken out of it: PyPI does
# not have its +cpu build (scripts/setup.sh). uv has to find that build for both Pythons: PIP_FIND_LINKS names a folder or a page that has it.
set -euo pipefail
cd "$(dirname "$0")/../requirements"
die() { printf 'lock: %s\n' "$*" >&2; exit 1; }
command -v uv >/dev/null || die "uv is needed (pip install uv)"
links=${PIP_FIND_LINKS:+--find-links $PIP_FIND_LINKS}
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

for python in 3.11 3.12; do
    # What is in the output file already is preferred to a newer version: 3.12 takes what 3.11 has.
    [ "$python" = 3.11 ] || cp "$new/3.11" "$new/$python"
    # shellcheck disable=SC2086
    uv pip compile cpu.in --override cpu-overrides.txt --python-version "$python" --python-platform x86_64-unknown-linux-gnu \
        --generate-hashes --no-annotate --no-header --no-emit-package torch --no-emit-find-links --quiet $links -o "$new/$python"
done
diff <(grep == "$new/3.11") <(grep == "$new/3.12") >&2 \
    || die "the two Pythons would get other packages (above): pin one version for both in cpu.in"
{
    echo "# Compiled from cpu.in with cpu-overrides.txt for Python 3.11 and 3.12 by scripts/lock.sh; install with --no-deps."
    cat "$new/3.11"
} > cpu.lock

{
    echo "# Compiled from docs.in for Python 3.11 to 3.13 by scripts/lock.sh; versions that cpu.lock has too are the same."
    uv pip compile docs.in -c cpu.lock --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
        --no-emit-find-links --quiet $links
} > docs.lock.tmp
mv docs.lock.tmp docs.lock
