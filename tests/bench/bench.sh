#!/usr/bin/env bash
# Figures of Cairn beside redis-server's, from one run on one machine. Prints a table; a slow figure fails nothing.
set -euo pipefail
# shellcheck source=tests/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

if ! command -v redis-server >/dev/null || ! command -v redis-benchmark >/dev/null; then
    tests/scripts/setup.sh
fi
say "building"
cargo build --release --locked -p cairn-server -p cairn-backup -p cairn-restore -p cairn-tests
CAIRN_BIN_DIR=$TARGET/release exec "$TARGET/release/cairn-bench" "$@"
