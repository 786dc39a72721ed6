#!/bin/sh
# The strongest proof that the API needs no torch: an environment that has none.
set -eu
cd "$(dirname "$0")/.."
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python=$venv/bin/python

.venv/bin/python -m venv --without-pip "$venv"
.venv/bin/uv pip install --quiet --python "$python" --no-deps --require-hashes -r requirements-api.lock ||
    .venv/bin/python -m pip --python "$python" --quiet install --no-deps --require-hashes -r requirements-api.lock
"$python" - <<'CODE'
import importlib.util

import service.cli.main
import service.main

for name in ("torch", "transformers", "sklearn"):
    if importlib.util.find_spec(name):
        raise SystemExit(f"check-api: {name} is in requirements-api.lock")
CODE
"$python" -m service.cli.main --help >/dev/null
"$python" -m service.cli.main methods --json >/dev/null
echo "check-api: the API starts without torch"
