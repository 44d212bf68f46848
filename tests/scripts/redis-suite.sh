#!/usr/bin/env bash
# Runs Redis's own test suite against cairn-server and counts; see tests/redis_suite/settings.rs for what can be set:
# MODE=own, FILES="unit/type/list unit/scan", TESTS="/^SCAN", PEER=/usr/bin/redis-server, JOBS=2, CAIRN_PROVE=1.
set -euo pipefail
# shellcheck source=tests/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tests/scripts/setup.sh --redis-suite
[ -n "${PEER:-}" ] || cargo build --quiet --locked -p cairn-server
cargo build --quiet --locked -p cairn-tests --bin cairn-redis-suite
export CAIRN_BIN_DIR=$TARGET/debug CAIRN_SUITE_DIR=$DEPS/redis-suite/source
exec "$TARGET/debug/cairn-redis-suite"
