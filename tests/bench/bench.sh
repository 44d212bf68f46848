#!/usr/bin/env bash
# Figures of Cairn beside redis-server's or another PEER's, from one run on one machine. Prints a table; a slow figure fails nothing.
set -euo pipefail
# shellcheck source=tests/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

tests/scripts/setup.sh --bench
say "building"
# In one call, or what is shared would be built twice with different features.
cargo build --release --locked -p cairn-server -p cairn-backup -p cairn-restore -p cairn-tests -p cairn-store \
    --bins --example raw_transfer
CAIRN_BIN_DIR=$TARGET/release exec "$TARGET/release/cairn-bench" "$@"
