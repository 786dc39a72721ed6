#!/bin/sh
# Makes .venv: torch for this machine, then everything else as locked. Safe to run again; then it takes no time.
#   PYTHON           the interpreter to use (default: the first of python3.11 ... python3 that is 3.11 or newer)
#   LETHE_TORCH      cpu or cuda (default: cuda where nvidia-smi is)
#   TORCH_CPU_INDEX  a package index that holds CPU builds of torch, for Linux machines without a GPU
set -eu
cd "$(dirname "$0")/.."
venv=.venv
stamp=$venv/.lethe-setup

fingerprint() { # the path is part of it: neither a virtual environment nor an editable install survives a move
    { pwd; cat pyproject.toml requirements-dev.lock scripts/setup.sh; } | cksum
}

fail() {
    echo "setup: $*" >&2
    exit 1
}

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_recent "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 or newer"
        python=$PYTHON
        return
    fi
    for python in python3.11 python3.12 python3.13 python3.14 python3; do
        if is_recent "$python"; then return; fi
    done
    fail "no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python make setup"
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

wants_cuda() {
    case ${LETHE_TORCH:-auto} in
        cuda) return 0 ;;
        cpu) return 1 ;;
        *) command -v nvidia-smi >/dev/null 2>&1 ;;
    esac
}

install_torch() {
    torch=$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
    echo "setup: installing $torch"
    # A wheel in a folder that pip is configured to look in (air-gapped sites); elsewhere this fails at once.
    if pip install --no-index --no-deps "$torch" 2>/dev/null; then return; fi
    if ! wants_cuda && [ -n "${TORCH_CPU_INDEX:-}" ]; then
        pip install --no-deps --index-url "$TORCH_CPU_INDEX" "$torch"
        return
    fi
    # With its dependencies, since a CUDA build brings the NVIDIA libraries that the lock leaves out.
    pip install "$torch" || fail "could not install $torch; set TORCH_CPU_INDEX or configure pip's index"
}

install_locked() {
    # uv comes out of the lock too, so that its version and hashes stand in one place.
    sed -n '/^uv==/,/[^\\]$/p' requirements-dev.lock >"$venv/uv.lock"
    pip install --no-deps --require-hashes -r "$venv/uv.lock"
    echo "setup: installing $(grep -c == requirements-dev.lock) locked packages"
    # uv does not read pip's configuration, so where only pip knows the mirror, pip does it (slower).
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" \
        --no-deps --require-hashes -r requirements-dev.lock ||
        pip install --no-deps --require-hashes -r requirements-dev.lock
}

key=$(fingerprint)
if [ -x $venv/bin/python ] && [ "$(cat $stamp 2>/dev/null)" = "$key" ]; then
    exit 0
fi
find_python
if ! "$venv/bin/python" -c 'import sys' 2>/dev/null; then
    echo "setup: making $venv with $("$python" --version)"
    "$python" -m venv --clear $venv || fail "could not make $venv; on Debian install python3-venv"
fi
# A torch that is there already stays: the user may have put in another CUDA or a ROCm build.
"$venv/bin/python" -c 'import torch' 2>/dev/null || install_torch
install_locked
pip install --no-deps --no-build-isolation --editable .
pip check
if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then # then Python would compile the libraries anew at each start: seconds
    "$venv/bin/python" -m compileall -qq -j 0 -x '/tests?/' "$venv"/lib/python*/site-packages || true # templates fail
fi
echo "$key" >$stamp
echo "setup: done"
