#!/usr/bin/env bash
# Builds docs/ as a site into build/docs. Warnings are errors. The tools live in .venv-docs, apart from the training stack.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv-docs
LOCK=requirements/docs.lock

die() { printf 'docs: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-} .venv/bin/python python3.11 python3.12 python3.13 python3; do
        "$candidate" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue
        printf '%s\n' "$candidate"
        return
    done
    die "Python 3.11 to 3.13 with its venv module is needed for the site; name one by PYTHON=/path/to/python3.11 make docs"
}

stamp=$(sha256sum < "$LOCK" | cut -d' ' -f1)
if [ "$(cat "$VENV/.complete" 2>/dev/null || true)" != "$stamp" ]; then
    python=$(find_python)
    echo "docs: making $VENV with $("$python" --version) (seconds)"
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
    "$VENV/bin/python" -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r "$LOCK" \
        || die "the locked packages could not be installed (messages above); check pip's index and the network, then run again"
    printf '%s' "$stamp" > "$VENV/.complete"
fi

# -E -a: every page anew, since a page that did not change keeps the titles that the others had.
"$VENV/bin/python" -m sphinx -W --keep-going -q -E -a -b html -d build/docs.cache docs build/docs

# A page that fetches something when it is opened tells others who reads it, and breaks without a network.
fetched=$(grep -rnoE '<(script|link|img|iframe|source|object)[^>]*(src|href|data)="(https?:)?//[^"]*|(@import|url\()[^;)]*https?://[^;)]*' \
    build/docs --include='*.html' --include='*.css' || true)
[ -z "$fetched" ] || die "these are fetched from elsewhere when a page is opened:
$fetched"
echo "docs: open build/docs/index.html"
