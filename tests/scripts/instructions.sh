#!/usr/bin/env bash
# Instructions per operation beside the committed baseline; UPDATE=1 makes today's counts the baseline.
set -euo pipefail
# shellcheck source=tests/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tests/scripts/setup.sh --instructions
say "counting instructions"
# Optimised as a release is, but without linking everything anew: that would take minutes.
cargo build --quiet --profile instructions --locked -p cairn-engine --example instructions
cargo build --quiet --locked -p cairn-tests --bin cairn-instructions
"$TARGET/debug/cairn-instructions" "$TARGET/instructions/examples/instructions"
