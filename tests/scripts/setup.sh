#!/usr/bin/env bash
# Installs what the tests need and this machine lacks; a second run finds everything there and changes nothing.
# With --run only what `make run` needs (Rust and a C compiler) is looked at, with --bench what `make bench` needs, with
# --instructions what `make instructions` does, and with --redis-suite what `make redis-suite` does.
set -euo pipefail
# shellcheck source=tests/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
REDIS_PY='redis>=5,<9'
REDIS_JS='redis@5'
REDIS_SUITE_VERSION=7.0.15

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

need_node() {
    [ -d "$DEPS/node/node_modules/redis" ] && return
    command -v npm >/dev/null || apt_install nodejs npm
    say "making $DEPS/node with Node's redis client"
    mkdir -p "$DEPS/node"
    echo '{ "private": true }' >"$DEPS/node/package.json"
    npm install --prefix "$DEPS/node" --no-fund --no-audit --loglevel error "$REDIS_JS"
}

# Unpacked only: installed as a package it would start by itself.
need_redis_exporter() {
    [ -x "$DEPS/bin/redis_exporter" ] && return
    command -v apt-get >/dev/null || fail "redis_exporter is missing: put it into $DEPS/bin"
    local home=$DEPS/redis-exporter
    say "fetching redis_exporter"
    rm -rf "$home"
    mkdir -p "$home" "$DEPS/bin"
    (cd "$home" && apt-get -q download prometheus-redis-exporter) ||
        { as_root apt-get -q update && (cd "$home" && apt-get -q download prometheus-redis-exporter); } ||
        fail "Debian's prometheus-redis-exporter could not be fetched"
    dpkg-deb -x "$home"/*.deb "$home"
    cp "$home/usr/bin/prometheus-redis-exporter" "$DEPS/bin/redis_exporter"
    rm -rf "$home"
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

# The sources of Debian's redis package, whose tests we run. apt is told of them by an entry of our own, beside a copy of the
# machine's, in a directory of our own: nothing of the machine's configuration changes.
need_redis_suite() {
    local home=$DEPS/redis-suite file options
    [ -f "$home/source/tests/test_helper.tcl" ] && [ "$(cat "$home/version" 2>/dev/null)" = "$REDIS_SUITE_VERSION" ] && return
    command -v apt-get >/dev/null || fail "apt-get is missing: unpack the sources of redis $REDIS_SUITE_VERSION as $home/source"
    say "fetching the sources of Debian's redis $REDIS_SUITE_VERSION"
    rm -rf "$home"
    mkdir -p "$home/sources" "$home/lists/partial" "$home/cache/archives/partial" "$home/download"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        if [ -f "$file" ] && grep -qi debian "$file"; then
            sed -E 's/^Types:.*/Types: deb-src/; s/^deb[[:space:]]/deb-src /' "$file" >"$home/sources/${file##*/}"
        fi
    done
    options=(-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$home/sources" -o Dir::State::lists="$home/lists"
        -o Dir::Cache="$home/cache" -o APT::Sandbox::User="$(id -un)")
    apt-get "${options[@]}" -q update || say "apt-get update failed; trying with what it has"
    # Debian's patches bring tests of their own, so dpkg-source unpacks and applies them.
    command -v dpkg-source >/dev/null || apt_install dpkg-dev
    (cd "$home/download" && apt-get "${options[@]}" -q source redis) ||
        fail "the sources of redis could not be fetched; is a Debian mirror within reach?"
    [ -d "$home/download/redis-$REDIS_SUITE_VERSION" ] ||
        fail "Debian's sources are not those of redis $REDIS_SUITE_VERSION: $(ls "$home/download")"
    mv "$home/download/redis-$REDIS_SUITE_VERSION" "$home/source"
    rm -rf "$home/cache" "$home/lists" "$home/download"
    echo "$REDIS_SUITE_VERSION" >"$home/version"
}

need_tcl() {
    command -v tclsh >/dev/null || apt_install tcl
}

need_rust
case "${1:-}" in
    --run) ;;
    --instructions) need_valgrind ;;
    --redis-suite)
        need_redis
        need_tcl
        need_redis_suite
        ;;
    --bench)
        need_redis
        # Without MinIO all but two figures can be had, and their rows say so.
        (need_minio) || say "there is no MinIO: its rows will be missing"
        ;;
    *)
        need_rust_tools
        need_redis
        need_python
        need_node
        need_redis_exporter
        need_valgrind
        need_minio
        ;;
esac
