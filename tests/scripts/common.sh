# shellcheck shell=bash disable=SC2034
# Shared by the scripts beside it; sourced, never run. Sets the working directory to the top of the repository.

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
ROOT=$PWD
DEPS=$ROOT/.deps
# The server and the tools are built into one directory; a caller's own CARGO_TARGET_DIR is respected.
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}

say() { printf '== %s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
