#!/usr/bin/env bash
# Simulates the whole engine over a faulty disk, optimised, once for each seed of SEEDS=from..to (1..300000 unless told).
# Says every ten thousand runs how it is getting on, and at the end in one line what came of it.
set -euo pipefail
# shellcheck source=tests/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

export SEEDS=${SEEDS:-1..300000}
[[ $SEEDS =~ ^[0-9]+(\.\.[0-9]+)?$ ]] || fail "SEEDS must be from..to, or one seed, not '$SEEDS'"

cargo test --release --locked -p cairn-engine --lib -- --exact --nocapture simulation::seeds::no_promise_is_broken ||
    fail "a promise was broken: the lines above say which, and which seed replays it"
