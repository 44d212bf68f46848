#!/usr/bin/env bash
# Installs what the tests need and this machine lacks; a second run finds everything there and changes nothing.
# With --run only what `make run` needs (Rust and a C compiler) is looked at, with --bench what `make bench` needs, and with
# --instructions what `make instructions` does.
set -euo pipefail
# shellcheck source=tests/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
REDIS_PY='redis>=5,<9'

need_rust() {
    command -v cargo >/dev/null || fail "cargo is missing: install Rust by rustup, https://rustup.rs"
    command -v cc >/dev/null || fail "no C compiler (cc) is found: install one, on Debian with: apt-get install gcc libc6-dev"
}

need_rust_tools() {
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        command -v rustup >/dev/null || fail "rustfmt or clippy is missing and there is no rustup to add it"
        rustup component add rustfmt clippy
    fi
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "must be root (or have sudo) to run: $*"
    fi
}

apt_install() {
    command -v apt-get >/dev/null || fail "missing: $* — install them by this system's package manager"
    say "installing $*"
    # A mirror that does not answer to `update` may still serve the packages already known.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q || say "apt-get update failed; trying with the lists at hand"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

need_redis() {
    command -v redis-server >/dev/null && command -v redis-cli >/dev/null && command -v redis-benchmark >/dev/null && return
    apt_install redis-server redis-tools
}

need_valgrind() {
    command -v valgrind >/dev/null || apt_install valgrind
}

need_python() {
    local python=$DEPS/venv/bin/python
    if [ -x "$python" ] && "$python" -c 'import redis' 2>/dev/null; then
        return
    fi
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install python3 python3-venv
    fi
    say "making $DEPS/venv with Python's redis client"
    python3 -m venv --clear "$DEPS/venv"
    "$DEPS/venv/bin/pip" install --quiet --disable-pip-version-check "$REDIS_PY"
}

need_minio() {
    [ -x "$DEPS/bin/minio" ] && [ "$(cat "$DEPS/bin/minio.version" 2>/dev/null)" = "$MINIO_VERSION" ] && return
    local found major minor
    command -v go >/dev/null || fail "Go 1.24 or newer is needed to build MinIO for the tests: https://go.dev/dl"
    found=$(go env GOVERSION)
    IFS=. read -r major minor _ <<<"${found#go}"
    if [ "$major" -lt 1 ] || { [ "$major" -eq 1 ] && [ "${minor%%[!0-9]*}" -lt 24 ]; }; then
        fail "Go 1.24 or newer is needed to build MinIO for the tests, found $found: https://go.dev/dl"
    fi
    say "building MinIO $MINIO_VERSION with $found (once, some minutes)"
    mkdir -p "$DEPS/bin"
    GOBIN=$DEPS/bin nice -n 5 go install "github.com/minio/minio@$MINIO_VERSION" || fail "MinIO could not be built"
    echo "$MINIO_VERSION" >"$DEPS/bin/minio.version"
}

need_rust
case "${1:-}" in
    --run) ;;
    --instructions) need_valgrind ;;
    --bench)
        need_redis
        # Without MinIO all but two figures can be had, and their rows say so.
        (need_minio) || say "there is no MinIO: its rows will be missing"
        ;;
    *)
        need_rust_tools
        need_redis
        need_python
        need_valgrind
        need_minio
        ;;
esac
