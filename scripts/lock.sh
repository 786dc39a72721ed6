#!/bin/sh
# Regenerates the hashed locks from pyproject.toml. Keeps the versions already locked; `make lock FLAGS=--upgrade` moves
# them. Requirements files, since uv.lock names a package index on every line and sites install from their own mirror.
set -eu
cd "$(dirname "$0")/.."
[ -x .venv/bin/uv ] || sh scripts/setup.sh

compile() {
    output=$1
    shift
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --override scripts/lock/overrides.txt -o "$output" "$@"
    echo "$output: $(grep -c == "$output") packages"
}

compile requirements-dev.lock "$@" --extra worker --extra dev pyproject.toml scripts/lock/torch.in scripts/lock/build.in
# The two smaller locks take their versions from the one that the tests run with.
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
grep -v -e '--hash' requirements-dev.lock | sed 's/ *\\$//' >"$pins"
compile requirements.lock -c "$pins" --extra worker pyproject.toml scripts/lock/torch.in scripts/lock/build.in
compile requirements-api.lock -c "$pins" pyproject.toml scripts/lock/build.in
